"""Compares two models by their query tables, which stage `evaluate` and `cots evaluate` write."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from cots.directions import DIRECTIONS, MEDIA_OF
from cots.errors import BadInput
from cots.evaluation.metric_table import RECALLS
from cots.evaluation.metrics import RankedQueries
from cots.evaluation.paired import paired_bootstrap
from cots.evaluation.query_table import IN_COMMON, NAMES, NUMBERS, RIGHT_RANKS


def query_tables(path: Path) -> dict[str, list[pd.DataFrame]]:
    """Read the query tables of one model by target, one table per training run.

    Args:
        path: a table, or a folder with `image-text.parquet` and `video-text.parquet` anywhere below it. Tables of the
            same name are runs of one method with different seeds, in the order of their paths.

    Raises:
        BadInput: no such path, a folder without tables, or a file that is not a query table.
    """
    if path.is_file():
        target, table = _read(path)
        return {target: [table]}
    files = sorted(file for file in path.rglob("*.parquet") if file.stem in MEDIA_OF)
    if not files:
        raise BadInput(
            f"{path} has no image-text.parquet or video-text.parquet: give a folder that `dvc repro evaluate` wrote"
        )
    tables: dict[str, list[pd.DataFrame]] = {}
    for target, table in map(_read, files):
        tables.setdefault(target, []).append(table)
    return tables


def compare_query_tables(
    challenger: Sequence[pd.DataFrame], champion: Sequence[pd.DataFrame], *, resamples: int, seed: int
) -> dict[str, Any]:
    """`paired_bootstrap` of two models from their query tables; the order of rows does not matter.

    Args:
        challenger: one table per run.
        champion: as many tables.
        resamples: number of draws.
        seed: of the draws.

    Raises:
        BadInput: different numbers of runs, or tables of different queries.
    """
    if len(challenger) != len(champion):
        raise BadInput(f"runs are compared in pairs, not {len(challenger)} with {len(champion)}")
    tables = [_sort(table) for table in (*challenger, *champion)]
    for table in tables[1:]:
        if not table[IN_COMMON].equals(tables[0][IN_COMMON]):
            raise BadInput(_describe_mismatch(table, tables[0]))
    if not all(RIGHT_RANKS in table for table in tables):  # compared by the metrics that all tables allow
        tables = [table.drop(columns=RIGHT_RANKS, errors="ignore") for table in tables]
    runs = [directions_of(table) for table in tables]
    return paired_bootstrap(runs[: len(challenger)], runs[len(challenger) :], resamples=resamples, seed=seed)


def mean_recalls(
    challenger: pd.DataFrame, champion: pd.DataFrame, *, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """Mean recalls, means of R@1, R@5 and R@10 in per cent, of two models: for each direction, and for `both` together.

    Args:
        challenger: its query table.
        champion: its table of the same queries.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        For each direction, sorted by name, and then for `both`: challenger, champion, difference, low, high and p, as
        `paired_bootstrap` returns them.

    Raises:
        BadInput: tables of different queries.
    """
    directions = [str(name) for name in sorted(challenger["direction"].unique())]
    sums = {}
    for name in directions:
        ours, theirs = (table[table["direction"] == name] for table in (challenger, champion))
        sums[name] = compare_query_tables([ours], [theirs], resamples=resamples, seed=seed)["rsum"]
    sums["both"] = compare_query_tables([challenger], [champion], resamples=resamples, seed=seed)["rsum"]
    return {
        name: {
            key: value if key == "p" else value / (len(RECALLS) * (1 if name in directions else len(directions)))
            for key, value in scores.items()
        }
        for name, scores in sums.items()
    }


def _sort(table: pd.DataFrame) -> pd.DataFrame:
    """Rows in a fixed order and numbers of one type, whoever wrote the table."""
    return table.astype(dict.fromkeys(NUMBERS, "float64")).sort_values(["direction", "query"], ignore_index=True)


def directions_of(table: pd.DataFrame) -> Mapping[str, RankedQueries]:
    """The ranked queries of both directions from a query table, in the order of its rows."""
    query_to_item = np.unique(table["item"].to_numpy(str), return_inverse=True)[1]
    directions = {}
    for name, rows in table.groupby("direction"):
        directions[str(name)] = RankedQueries(
            rows["rank"].to_numpy(np.int64),
            query_to_item[rows.index],
            rows["relevant"].to_numpy(np.int64),
            int(rows["candidates"].iloc[0]),
            rows["average_precision"].to_numpy(),
            np.concatenate(rows[RIGHT_RANKS].tolist()).astype(np.int64) if RIGHT_RANKS in rows else None,
        )
    return directions


def read_queries(path: Path) -> pd.DataFrame:
    """Read one query table.

    Raises:
        BadInput: no such file, or not a query table.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[str, pd.DataFrame]:
    """A query table and the target that it is about."""
    try:
        columns = [*NAMES, *NUMBERS, *({RIGHT_RANKS} & set(pq.read_schema(path).names))]
        table = pd.read_parquet(path, columns=columns).astype(dict.fromkeys(NUMBERS, "float64"))
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path} is not a query table as `cots evaluate --queries` writes it ({reason})") from None
    targets = [target for target, media in MEDIA_OF.items() if set(table["direction"]) == set(DIRECTIONS[media])]
    if not targets or table.isna().any(axis=None) or table.duplicated(["direction", "query"]).any():
        raise BadInput(f"{path} is not a complete query table: each direction must have each query once")
    if RIGHT_RANKS in table and not table[RIGHT_RANKS].map(len).equals(table["relevant"].astype("int64")):
        raise BadInput(f"{path} is not a complete query table: {RIGHT_RANKS} must have a rank per right candidate")
    return targets[0], table


def _describe_mismatch(first: pd.DataFrame, second: pd.DataFrame) -> str:
    left, right = (set(table[["direction", "query"]].itertuples(index=False, name=None)) for table in (first, second))
    unshared = len(left ^ right)
    reason = f"{unshared} queries are in only one of them" if unshared else "the same queries had other candidates"
    return f"the two models were not evaluated on the same data ({reason}): evaluate both on the same split"
