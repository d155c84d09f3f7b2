"""Pairs that a trained filter distrusts: written after a run for people, held against the data before the next."""

from pathlib import Path

import pandas as pd

from cots.errors import BadInput
from cots.files import atomic_file

COLUMNS = ["id", "caption", "text", "score", "seen", "dropped"]


def suspects(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """The pairs that the adaptive momentum filter dropped in at least half of the steps that saw them.

    Args:
        pairs: a run's pairs.parquet: id, caption (its number), score, seen, dropped.
        manifest: the data's manifest.

    Returns:
        The columns `COLUMNS`, the least alike pair first.
    """
    chosen = pairs[(pairs["dropped"] > 0) & (2 * pairs["dropped"] >= pairs["seen"])]
    captions = manifest.set_index("id")["captions"]
    texts = [str(captions[sample][number]) for sample, number in zip(chosen["id"], chosen["caption"], strict=True)]
    return chosen.assign(text=texts).sort_values(["score", "id", "caption"], ignore_index=True)[COLUMNS]


def write_suspects(path: Path, suspected: pd.DataFrame) -> None:
    """Write the list as CSV."""
    with atomic_file(path) as aside:
        suspected.to_csv(aside, index=False, float_format="%.4f")


def read_suspects(path: Path) -> pd.DataFrame:
    """A list of suspects, as `write_suspects` or a person left it; id and caption count.

    Raises:
        BadInput: no such file, or not such a list.
    """
    try:
        listed = pd.read_csv(path, dtype={"id": "str", "caption": "int64"})
        return listed[["id", "caption"]]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{path} is no list of suspects ({error}): a CSV with the columns {', '.join(COLUMNS)}, "
            "as `cots suspects` writes it; the first line alone is an empty list"
        ) from None
