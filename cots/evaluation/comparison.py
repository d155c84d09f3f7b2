"""Two models held against each other by the tables of their queries, as stage `evaluate` and `cots evaluate` write."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cots.directions import DIRECTIONS, MEDIA_OF
from cots.errors import BadInput
from cots.evaluation.metrics import RankedQueries
from cots.evaluation.paired import paired_bootstrap
from cots.evaluation.query_table import IN_COMMON, NAMES, NUMBERS


def query_tables(path: Path) -> dict[str, list[pd.DataFrame]]:
    """The tables of one model's queries by target, a table a training run.

    Args:
        path: a table, or a folder with `image-text.parquet` and `video-text.parquet` anywhere below it. Several of
            one name are runs of one method, a seed each, in the order of their paths.

    Raises:
        BadInput: no such path, no table in it, or a table of something else.
    """
    if path.is_file():
        return {target: [table] for target, table in [_read(path)]}
    files = sorted(file for file in path.rglob("*.parquet") if file.stem in MEDIA_OF)
    if not files:
        raise BadInput(
            f"{path} holds no image-text.parquet or video-text.parquet: name a folder of `dvc repro evaluate`"
        )
    tables: dict[str, list[pd.DataFrame]] = {}
    for target, table in map(_read, files):
        tables.setdefault(target, []).append(table)
    return tables


def compare_query_tables(
    challenger: Sequence[pd.DataFrame], champion: Sequence[pd.DataFrame], *, resamples: int, seed: int
) -> dict[str, Any]:
    """`paired_difference` of two models from their query tables, whatever the order of the rows.

    Args:
        challenger: a table a run.
        champion: as many.
        resamples: draws.
        seed: of the draws.

    Raises:
        BadInput: other numbers of runs, or tables of other queries.
    """
    if len(challenger) != len(champion):
        raise BadInput(f"runs are compared in pairs, not {len(challenger)} with {len(champion)}")
    ordered = [_ordered(table) for table in (*challenger, *champion)]
    for table in ordered[1:]:
        if not table[IN_COMMON].equals(ordered[0][IN_COMMON]):
            raise BadInput(_told_apart(table, ordered[0]))
    runs = [directions_of(table) for table in ordered]
    return paired_bootstrap(runs[: len(challenger)], runs[len(challenger) :], resamples=resamples, seed=seed)


def mean_recalls(
    challenger: pd.DataFrame, champion: pd.DataFrame, *, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """Mean recall, the mean of R@1, R@5 and R@10 in per cent, of two models: each direction's and that of `both`.

    Args:
        challenger: its table of queries.
        champion: the other's, of the same queries.
        resamples: draws.
        seed: of the draws.

    Returns:
        By direction, in the order of their names, and last `both`: challenger, champion, difference, low, high, p, as
        from `paired_difference`.

    Raises:
        BadInput: tables of other queries.
    """
    ways = {str(way): (challenger["direction"] == way, champion["direction"] == way) for way in _ways(challenger)}
    results = {
        way: compare_query_tables([challenger[ours]], [champion[theirs]], resamples=resamples, seed=seed)["rsum"]
        for way, (ours, theirs) in ways.items()
    }
    results["both"] = compare_query_tables([challenger], [champion], resamples=resamples, seed=seed)["rsum"]
    return {
        name: {
            key: value if key == "p" else value / (3 if name in ways else 3 * len(ways))
            for key, value in figures.items()
        }
        for name, figures in results.items()
    }


def _ways(table: pd.DataFrame) -> list[str]:
    return sorted(table["direction"].unique())


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in one order, the numbers in one type, whoever wrote them."""
    return table.astype(dict.fromkeys(NUMBERS, "float64")).sort_values(["direction", "query"], ignore_index=True)


def directions_of(table: pd.DataFrame) -> Mapping[str, RankedQueries]:
    """What `measure` found, from the table of its queries, in the order of its rows."""
    owners = np.unique(table["item"].to_numpy(str), return_inverse=True)[1]
    directions = {}
    for name, rows in table.groupby("direction"):
        directions[str(name)] = RankedQueries(
            rows["rank"].to_numpy(np.int64),
            owners[rows.index],
            rows["relevant"].to_numpy(np.int64),
            int(rows["candidates"].iloc[0]),
            rows["average_precision"].to_numpy(),
        )
    return directions


def read_queries(path: Path) -> pd.DataFrame:
    """One table of queries.

    Raises:
        BadInput: no such table, or a table of something else.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[str, pd.DataFrame]:
    """A table and the target it is about."""
    try:
        table = pd.read_parquet(path, columns=[*NAMES, *NUMBERS]).astype(dict.fromkeys(NUMBERS, "float64"))
    except (OSError, ValueError, TypeError) as error:
        why = " ".join(str(error).split())
        raise BadInput(f"{path} is no table of queries as `cots evaluate --queries` writes it ({why})") from None
    about = [target for target, media in MEDIA_OF.items() if set(table["direction"]) == set(DIRECTIONS[media])]
    if not about or table[[*NAMES, *NUMBERS]].isna().any(axis=None) or table.duplicated(["direction", "query"]).any():
        raise BadInput(f"{path} is no whole table of queries: each direction must tell of each query once")
    return about[0], table


def _told_apart(first: pd.DataFrame, second: pd.DataFrame) -> str:
    left, right = (set(table[["direction", "query"]].itertuples(index=False, name=None)) for table in (first, second))
    alone = len(left ^ right)
    what = f"{alone} queries are in one of them alone" if alone else "the same queries had other candidates"
    return f"the two were not measured on the same data ({what}): evaluate both on the same split"
