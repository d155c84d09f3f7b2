"""Samples that may be used no more: a list beside the source, which is never changed itself."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from cots.errors import BadInput
from cots.files import atomic_file

COLUMNS = ["id", "when", "reason"]


def read_withdrawn(path: Path) -> dict[str, str]:
    """Reasons by id.

    Raises:
        BadInput: no such file, or not such a list.
    """
    return dict(_read(path)[["id", "reason"]].itertuples(index=False, name=None))


def add_withdrawn(path: Path, reasons: Mapping[str, str]) -> None:
    """Add samples to the list; those on it stay as they are.

    Raises:
        BadInput: no such file, or not such a list.
    """
    table = _read(path)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    known = set(table["id"])
    new = [{"id": sample, "when": now, "reason": reason} for sample, reason in reasons.items() if sample not in known]
    with atomic_file(path, durable=True) as aside:
        pd.concat([table, pd.DataFrame(new, columns=COLUMNS, dtype="str")]).to_csv(aside, index=False)


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype="str", keep_default_na=False)[COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{path} is no list of withdrawn samples ({error}): a CSV with the columns {', '.join(COLUMNS)}, as "
            "`cots data withdraw` writes it; the first line alone is an empty list"
        ) from None
