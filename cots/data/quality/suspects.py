"""suspects.csv: pairs that the filter distrusted in training, a list that `validate` limits."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from cots.data.manifest import MADE
from cots.data.pairs import PAIR_COLUMNS, mark_made
from cots.data.text_csv import unescape_formula, write_csv
from cots.data.verdicts import PairKey, pair_key
from cots.errors import BadInput

KEY_COLUMNS = ["id", "caption"]
DTYPES = {"id": "str", "caption": "int64", "text": "str"}
SUSPECT_COLUMNS = [*KEY_COLUMNS, "text", *(name for name in PAIR_COLUMNS if name not in KEY_COLUMNS)]


def find_suspects(pairs: pd.DataFrame, manifest: pd.DataFrame, judged: Collection[PairKey] = ()) -> pd.DataFrame:
    """Select the pairs that the adaptive momentum filter dropped in at least half of the steps that saw them.

    Args:
        pairs: from `read_pairs`.
        manifest: of the run's data.
        judged: pairs that are left out, because people have judged them.

    Returns:
        Rows with `SUSPECT_COLUMNS`, lowest similarity first; and a column `made` if some captions of the data were made
        from labels.
    """
    suspects = pairs[(pairs["dropped"] > 0) & (2 * pairs["dropped"] >= pairs["seen"])]
    columns = SUSPECT_COLUMNS
    if MADE in manifest:
        suspects, columns = mark_made(suspects, manifest), [*SUSPECT_COLUMNS, MADE]
    captions = manifest.set_index("id")["captions"]
    texts = [str(captions[sample][index]) for sample, index in zip(suspects["id"], suspects["caption"], strict=True)]
    unjudged = _leave_out(suspects.assign(text=texts), judged)
    return unjudged.sort_values(["score", "id", "caption"], ignore_index=True)[columns]


def select_present(suspects: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Select the pairs whose caption the data still have, wherever it stands among those of its sample.

    Args:
        suspects: from `find_suspects`, with the manifest that the run was trained on.
        manifest: of the current data.

    Returns:
        The rows, with the current index in column `caption`.
    """
    places = {
        (sample, caption): place
        for sample, captions in zip(manifest["id"], manifest["captions"], strict=True)
        for place, caption in reversed(list(enumerate(captions)))
    }
    current = [places.get(pair) for pair in zip(suspects["id"], suspects["text"], strict=True)]
    rows = suspects.assign(caption=pd.array(current, "Int64")).dropna(subset=["caption"])
    return rows.astype({"caption": "int64"}).reset_index(drop=True)


def write_suspects(path: Path, suspects: pd.DataFrame) -> None:
    """Write the list."""
    write_csv(path, suspects)


def read_suspects(path: Path, judged: Collection[PairKey] = ()) -> pd.DataFrame:
    """Read ids and caption indices of a list that `write_suspects` wrote and a person may have shortened.

    Args:
        path: of the list.
        judged: pairs that are left out, because people have judged them; a list without texts has none of them.

    Raises:
        BadInput: no such file, or it is not a list of suspects.
    """
    try:
        suspects = pd.read_csv(path, dtype=DTYPES, keep_default_na=False)
        if missing := [name for name in KEY_COLUMNS if name not in suspects]:
            raise ValueError(f"no column {missing[0]}")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} is not a list of suspects ({error}): it must be a CSV with the columns "
            f"{', '.join(SUSPECT_COLUMNS)}, as `cots suspects` writes it; an empty list is the header alone"
        ) from None
    suspects = suspects.reindex(columns=[*KEY_COLUMNS, "text"], fill_value="")
    texts = {name: suspects[name].map(unescape_formula) for name in ("id", "text")}
    return _leave_out(suspects.assign(**texts), judged)[KEY_COLUMNS]


def _leave_out(suspects: pd.DataFrame, judged: Collection[PairKey]) -> pd.DataFrame:
    keys = map(pair_key, suspects["id"], suspects["text"])
    unjudged = np.array([key not in judged for key in keys], np.bool_)
    return suspects[unjudged].reset_index(drop=True)
