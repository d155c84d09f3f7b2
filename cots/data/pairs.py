"""pairs.parquet: what a training run found out about each pair that it saw, one row per pair."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cots.data.manifest import MADE
from cots.errors import BadInput

GIVEN = "given"  # captions that were not made from labels
PAIR_COLUMNS = [
    "id",  # of the image or video
    "caption",  # index of the caption among those of the image or video
    "score",  # similarity when last seen
    "seen",  # number of steps
    "dropped",  # number of steps in which the filter dropped the pair
]


def read_pairs(path: Path) -> pd.DataFrame:
    """Read the pairs of a run; the columns are `PAIR_COLUMNS`.

    Raises:
        BadInput: no such file.
    """
    if not path.is_file():
        raise BadInput(f"no file {path}: run `dvc repro pretrain`")
    return pd.read_parquet(path)


class DropRate(NamedTuple):
    """What the filter did with some pairs.

    Attributes:
        pairs: number of pairs that were trained on.
        rate: fraction of the times seen at which they were dropped, in [0, 1].
        score: mean of their latest similarities.
    """

    pairs: int
    rate: float
    score: float


def drop_rates(pairs: pd.DataFrame, manifest: pd.DataFrame) -> dict[str, DropRate]:
    """How often the filter dropped captions that were made from labels, and others: `made` and `given`.

        rate = sum of dropped / sum of seen

    Args:
        pairs: from `read_pairs`; without a filter nothing is dropped.
        manifest: of the run's data.

    Returns:
        By kind; empty if no caption was made.
    """
    if MADE not in manifest:
        return {}
    pairs = mark_made(pairs, manifest)
    return {
        kind: DropRate(len(rows), float(rows["dropped"].sum() / rows["seen"].sum()), float(rows["score"].mean()))
        for kind, rows in ((GIVEN, pairs[~pairs[MADE]]), (MADE, pairs[pairs[MADE]]))
        if len(rows)
    }


def mark_made(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Add a column `made`: whether the caption of each pair was made from a label."""
    made = dict(zip(manifest["id"], manifest[MADE], strict=True))
    flags = [
        made[sample] is not None and bool(made[sample][index])
        for sample, index in zip(pairs["id"], pairs["caption"], strict=True)
    ]
    return pairs.assign(**{MADE: np.array(flags, np.bool_)})
