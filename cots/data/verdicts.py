"""verdicts.csv: what people decided on pairs that a filter distrusted. `prepare` leaves out the rejected captions."""

from collections.abc import Mapping, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from cots.data.text_csv import unescape_formula, write_csv
from cots.digests import text_digest
from cots.errors import BadInput
from cots.files import locked

Verdict = Literal["accepted", "rejected"]
VERDICT_COLUMNS = ["id", "caption_digest", "verdict", "when"]
PairKey = tuple[str, str]  # the sample's id and the digest of its caption


def pair_key(sample: str, caption: str) -> PairKey:
    """What names a pair in the list, whatever the place of the caption among those of the sample."""
    return sample, text_digest(caption)


def read_verdicts(path: Path) -> dict[PairKey, Verdict]:
    """Read the list; without the file nobody has judged a pair. Of two verdicts on a pair the later one holds.

    Raises:
        BadInput: the file is not a list of verdicts.
    """
    rows = _read(path).sort_values("when", kind="stable")
    return dict(zip(zip(rows["id"], rows["caption_digest"], strict=True), rows["verdict"], strict=True))


def select_rejected(verdicts: Mapping[PairKey, Verdict]) -> Set[PairKey]:
    """The pairs that people rejected."""
    return {pair for pair, verdict in verdicts.items() if verdict == "rejected"}


def set_verdict(path: Path, pair: PairKey, verdict: Verdict | None) -> None:
    """Write a verdict on a pair in place of an earlier one; None takes that back. It is on the disk when this returns.

    Raises:
        BadInput: the file is not a list of verdicts.
    """
    with locked(path.parent):  # a missing file could not be locked
        table = _read(path)
        rest = table[(table["id"] != pair[0]) | (table["caption_digest"] != pair[1])]
        row = [] if verdict is None else [(*pair, verdict, datetime.now(UTC).isoformat(timespec="seconds"))]
        _write(path, pd.concat([rest, pd.DataFrame(row, columns=VERDICT_COLUMNS, dtype="str")]))


def _write(path: Path, table: pd.DataFrame) -> None:
    """Write the rows in an order that does not depend on who judged first, so that git merges two lists."""
    write_csv(path, table.sort_values(["id", "caption_digest"], kind="stable"), durable=True)


def _read(path: Path) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame(columns=VERDICT_COLUMNS, dtype="str")
    try:
        table = pd.read_csv(path, dtype="str", keep_default_na=False)[VERDICT_COLUMNS]
        if unknown := set(table["verdict"]) - set(get_args(Verdict)):
            raise ValueError(f"unknown verdict {sorted(map(str, unknown))[0]!r}")
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{path} is not a list of verdicts ({error}): it must be a CSV with the columns "
            f"{', '.join(VERDICT_COLUMNS)}, as `cots suspects --review` writes it; an empty list is the header alone"
        ) from None
    return table.assign(id=table["id"].map(unescape_formula))
