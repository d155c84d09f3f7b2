"""withdrawn.csv: samples that may no longer be used. The source itself is never changed."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from cots.data.text_csv import unescape_formula, write_csv
from cots.errors import BadInput
from cots.files import locked

WITHDRAWN_COLUMNS = ["id", "when", "reason"]


def read_withdrawn(path: Path) -> dict[str, str]:
    """Read the list: reasons by id.

    Raises:
        BadInput: no such file, or it is not a list of withdrawn samples.
    """
    return dict(_read(path)[["id", "reason"]].itertuples(index=False, name=None))


def add_withdrawn(path: Path, reasons: Mapping[str, str]) -> None:
    """Add samples to the list; those that it names already keep their first reason.

    Raises:
        BadInput: no such file, or it is not a list of withdrawn samples.
    """
    _read(path)  # a missing file could not be locked
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with locked(path):
        table = _read(path)
        new = [(sample, now, reason) for sample, reason in reasons.items() if sample not in set(table["id"])]
        write_csv(path, pd.concat([table, pd.DataFrame(new, columns=WITHDRAWN_COLUMNS, dtype="str")]), durable=True)


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype="str", keep_default_na=False)[WITHDRAWN_COLUMNS].map(unescape_formula)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{path} is not a list of withdrawn samples ({error}): it must be a CSV with the columns "
            f"{', '.join(WITHDRAWN_COLUMNS)}, as `cots data withdraw` writes it; an empty list is the header alone"
        ) from None
