"""CSV files with texts from data. People open them in a spreadsheet, which computes cells that begin like a formula."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from cots.files import atomic_file

FORMULA = re.compile(r"^(?=[=+\-@\t\r'])")
ESCAPED = re.compile(r"^'(?=[=+\-@\t\r'])")


def escape_formula(text: str) -> str:
    """The text, with an apostrophe before it if a spreadsheet would compute it."""
    return FORMULA.sub("'", text)


def unescape_formula(text: str) -> str:
    """The text that `escape_formula` was given."""
    return ESCAPED.sub("", text)


def write_csv(path: Path, table: pd.DataFrame, *, durable: bool = False) -> None:
    """Write a table atomically, with its texts escaped and floats of four decimals.

    A text with any end of a line in it is quoted, so that every reader takes its row for one; `DataFrame.to_csv` leaves
    a carriage return as it is, which the name of a folder's icon on macOS has.

    Args:
        path: the file.
        table: the rows; the index is not written.
        durable: see `atomic_file`.
    """
    rows: list[Iterable[object]] = [table.columns, *table.itertuples(index=False)]
    with atomic_file(path, durable=durable) as partial:
        partial.write_text("".join(map(_format_row, rows)), encoding="utf8", newline="")


def _format_row(cells: Iterable[object]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(map(_format_cell, cells))  # it quotes what holds either of these
    return text.getvalue().removesuffix("\r\n") + "\n"


def _format_cell(cell: object) -> object:
    if isinstance(cell, float):
        return f"{cell:.4f}"
    return escape_formula(cell) if isinstance(cell, str) else cell
