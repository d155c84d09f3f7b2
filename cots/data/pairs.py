"""pairs.parquet: what a training run found out about each pair that it saw, one row per pair."""

from pathlib import Path

import pandas as pd

from cots.errors import BadInput

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
