"""suspects.csv: pairs that the filter distrusted in training, a list that people check and `validate` limits."""

from pathlib import Path

import pandas as pd

from cots.data.formulas import escape_formula, unescape_formula
from cots.data.pairs import PAIR_COLUMNS
from cots.errors import BadInput
from cots.files import atomic_file

KEY_COLUMNS = ["id", "caption"]
SUSPECT_COLUMNS = [*KEY_COLUMNS, "text", *(name for name in PAIR_COLUMNS if name not in KEY_COLUMNS)]


def find_suspects(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Select the pairs that the adaptive momentum filter dropped in at least half of the steps that saw them.

    Args:
        pairs: from `read_pairs`.
        manifest: of the run's data.

    Returns:
        Rows with `SUSPECT_COLUMNS`, lowest similarity first.
    """
    suspects = pairs[(pairs["dropped"] > 0) & (2 * pairs["dropped"] >= pairs["seen"])]
    captions = manifest.set_index("id")["captions"]
    texts = [str(captions[sample][index]) for sample, index in zip(suspects["id"], suspects["caption"], strict=True)]
    return suspects.assign(text=texts).sort_values(["score", "id", "caption"], ignore_index=True)[SUSPECT_COLUMNS]


def write_suspects(path: Path, suspects: pd.DataFrame) -> None:
    """Write the list."""
    texts = {name: suspects[name].map(escape_formula) for name in ("id", "text")}
    with atomic_file(path) as partial:
        suspects.assign(**texts).to_csv(partial, index=False, float_format="%.4f")


def read_suspects(path: Path) -> pd.DataFrame:
    """Read ids and caption indices of a list that `write_suspects` wrote and a person may have shortened.

    Raises:
        BadInput: no such file, or it is not a list of suspects.
    """
    try:
        suspects = pd.read_csv(path, dtype={"id": "str", "caption": "int64"}, keep_default_na=False)[KEY_COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{path} is not a list of suspects ({error}): it must be a CSV with the columns "
            f"{', '.join(SUSPECT_COLUMNS)}, as `cots suspects` writes it; an empty list is the header alone"
        ) from None
    return suspects.assign(id=suspects["id"].map(unescape_formula))
