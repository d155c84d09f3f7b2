"""Caption tables: CSV, TSV, JSONL and Parquet, row by row."""

import codecs
import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cots.data.sources.layout_io import parse_json
from cots.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

LANGUAGE = "language"  # usual name of the column with the languages of captions
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
SEPARATORS = (",", ";", "\t")  # of cells; the first one that the header has
MAX_CELL_CHARS = 1 << 24  # a longer cell lacks its closing quotation mark
PARQUET_ROWS = 1000  # held in memory at a time
BEYOND_PYTHON = (ValueError, OverflowError, KeyError)  # not UTF-8, later than the year 9999, an unknown time zone


class Cells(NamedTuple):
    """One row as its file holds it. A header comes first, as a row without values."""

    place: str  # in the file, such as `line 3`
    names: Sequence[str]  # of the columns; the same object in all rows below one header
    values: Sequence[Any] | None  # None for a header


class Row(NamedTuple):
    """One row of a caption table.

    Attributes:
        place: in the file, such as `line 3`.
        image: path of an image or video; empty if the row names none.
        caption: content of the cell: a text, or in JSONL and Parquet any value; `()` if the row has no captions.
        split: name of the split; None if the table has no such column.
        language: of the caption, as the cell has it; None if the table has no such column.
        metadata: values of the other columns, without empty ones.
    """

    place: str
    image: str
    caption: Any
    split: str | None
    language: Any
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """Positions of the columns of a table, or of the keys of one row of JSONL, which may lack any."""

    image: int | None
    caption: int | None
    split: int | None
    language: int | None
    metadata: tuple[tuple[str, int], ...]

    def parse(self, place: str, values: Sequence[Any]) -> Row:
        """Make a row of its values."""
        metadata = {name: values[position] for name, position in self.metadata}
        return Row(
            place=place,
            image="" if self.image is None else str(values[self.image] or "").strip(),
            caption=() if self.caption is None else values[self.caption],
            split=None if self.split is None else str(values[self.split] or ""),
            language=None if self.language is None else values[self.language],
            metadata={name: value for name, value in metadata.items() if not _is_empty(value)},
        )


def read_rows(table: Path, *, image: str, caption: str | None, language: str | None) -> Iterator[Row]:
    """The rows of a caption table. A row of JSONL may lack keys that others have.

    Args:
        table: its suffix tells the format; a file with another suffix is read as comma-separated.
        image: column with the paths of images and videos.
        caption: column with the captions; None if there is none. The column of the split is always called `split`.
        language: column with their languages; None if there is none. One called `LANGUAGE` may be missing.

    Raises:
        BadInput: the file is not in its format, no row has a column, it has one twice, or a row does not fit.
    """
    columns, names_before = None, None
    first: tuple[str, Sequence[str]] | None = None
    optional = language and language == LANGUAGE
    missing = [name for name in (image, caption, None if optional else language) if name is not None]
    for place, names, values in read_cells(table):
        if columns is None or names is not names_before:
            location = f"{table}" if values is None else f"{table}, {place}"
            columns, names_before = _find_columns(names, location, image, caption, language), names
            first = first or (location, names)
            missing = [name for name in missing if not _positions(names, name)]
        if values is None:
            _require_none(missing, location, names)
            continue
        if columns.image is not None and isinstance(values[columns.image], dict | bytes):
            raise BadInput(f"{table}, {place}: column {image} holds the images themselves: save them as files")
        yield columns.parse(place, values)
    if first:
        _require_none(missing, *first)


def read_cells(table: Path) -> Iterator[Cells]:
    """The rows of a table as its file holds them, the header first.

    The cells of a CSV may also be separated by semicolons or tabs, and it may be UTF-16, as spreadsheets write them.

    Raises:
        BadInput: the file is not in its format, or has a row that does not fit its header.
    """
    match table.suffix.lower():
        case ".jsonl":
            return _jsonl_rows(table)
        case ".parquet":
            return _parquet_rows(table)
        case _:
            return _csv_rows(table)


def _find_columns(
    names: Sequence[str], location: str, image: str, caption: str | None, language: str | None
) -> Columns:
    columns = [name for name in (image, caption, language, "split") if name is not None]
    positions = {name: _positions(names, name) for name in columns}
    if repeated := [name for name, indices in positions.items() if len(indices) > 1]:
        raise BadInput(f"{location}: several columns are called {' and '.join(repeated)}")
    used = {name: next(iter(indices), None) for name, indices in positions.items()}
    metadata = tuple((name, index) for index, name in enumerate(names) if name and index not in used.values())
    return Columns(
        image=used[image],
        caption=used[caption] if caption else None,
        split=used["split"],
        language=used[language] if language else None,
        metadata=metadata,
    )


def _require_none(missing: Sequence[str], location: str, names: Sequence[str]) -> None:
    if missing:
        column_names = ", ".join(map(repr, names)) or "none: the table is empty"
        raise BadInput(f"{location}: no column {' and '.join(missing)}; the columns found are {column_names}")


def _positions(names: Sequence[str], column: str) -> list[int]:
    """Positions of a column; if no name is equal, those that differ only in case count."""
    exact = [index for index, name in enumerate(names) if name == column]
    return exact or [index for index, name in enumerate(names) if name.lower() == column.lower()]


def _is_empty(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))


def _csv_rows(table: Path) -> Iterator[Cells]:
    with table.open("rb") as beginning:
        is_utf16 = beginning.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding, errors = ("utf-16", "replace") if is_utf16 else ("utf-8-sig", "surrogateescape")
    with table.open(encoding=encoding, errors=errors, newline="") as file:
        header_line = file.readline()
        separators = [mark for mark in SEPARATORS if mark in header_line] or [","]
        file.seek(0)
        has_tabs = table.suffix.lower() == ".tsv" or separators[0] == "\t"
        lines = _tsv_cells(file) if has_tabs else _csv_cells(file, table, separators[0])
        _, header = next(lines, (0, []))
        names = [name.strip() for name in header]
        yield Cells("header", names, None)
        for number, cells in lines:
            if any(cells[len(names) :]):
                raise BadInput(
                    f"{table}, line {number}: {len(cells)} cells, but the header has {len(names)}: put a caption "
                    "with commas between double quotes, and take tabs out"
                )
            values = [value for _, value in zip_longest(names, cells[: len(names)], fillvalue="")]
            yield Cells(f"line {number}", names, values)


def _csv_cells(file: Iterable[str], table: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows, each with the number of its last line."""
    csv.field_size_limit(MAX_CELL_CHARS)
    reader = csv.reader(file, delimiter=separator, strict=True)
    start = 1
    try:
        for cells in reader:
            start = reader.line_num + 1
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        lines = f"line {start}" if start >= reader.line_num else f"lines {start} to {reader.line_num}"
        raise BadInput(
            f"{table}, {lines}: {error}; save it as comma-separated UTF-8, with every double quote in a cell doubled"
        ) from None


def _tsv_cells(file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Split cells at tabs alone, because an unmatched quotation mark must not swallow the lines that follow."""
    for number, line in enumerate(file, start=1):
        if cells := line.rstrip("\r\n"):
            yield number, [_unquote(cell) for cell in cells.split("\t")]


def _unquote(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _jsonl_rows(table: Path) -> Iterator[Cells]:
    for number, line in enumerate(table.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        location = f"{table}, line {number}"
        try:
            row = parse_json(line)
        except ValueError as error:
            raise BadInput(f"{location}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise BadInput(f"{location}: not a JSON object")
        yield Cells(f"line {number}", list(row), list(row.values()))


def _parquet_rows(table: Path) -> Iterator[Cells]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with table.open("rb") as opened, pq.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            yield Cells("header", names, None)
            number = 0
            for batch in file.iter_batches(PARQUET_ROWS):
                for values in zip(*map(_to_list, batch.columns), strict=True):
                    number += 1
                    yield Cells(f"row {number}", names, values)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{table} cannot be read as Parquet: {' '.join(str(error).split())}") from None


def _to_list(column: "pa.Array") -> list[Any]:
    """Convert a column to Python, value by value if Python cannot hold some of them."""
    try:
        return list(column.to_pylist())
    except BEYOND_PYTHON:
        return [_to_python(value) for value in column]


def _to_python(value: "pa.Scalar") -> Any:  # noqa: ANN401  a value of any type
    """Convert a value; bytes that are not UTF-8 become lone surrogates, a date beyond Python's range becomes None."""
    import pyarrow as pa

    try:
        return value.as_py()
    except BEYOND_PYTHON:
        pass
    match value:
        case pa.StringScalar():
            return value.as_buffer().to_pybytes().decode(errors="surrogateescape")
        case pa.DictionaryScalar():
            return _to_python(value.value)
        case pa.ListScalar():
            return [_to_python(part) for part in value.values]
        case pa.StructScalar():
            return {name: _to_python(part) for name, part in value.items()}
    return None
