"""A folder of images and videos with a caption table: CSV, TSV or JSONL."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cots.config_base import Config, Seed
from cots.data.samples import Sample, Split, is_utf8
from cots.data.sources.holdout import HOLDOUT, HoldoutConfig, split_by_hash
from cots.data.sources.layout_io import make_sample, media_of, parse_json, parse_split, require_folder
from cots.errors import BadInput

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
TABLE_COLUMNS = ("image", "caption", "split")
MAX_CELL_CHARS = 1 << 24  # in a longer cell the closing quotation mark is missing
Row = dict[str, Any]  # texts; a caption of JSONL is whatever the file holds


class FolderSourceConfig(Config):
    """A folder with a caption table that names images and videos relative to it."""

    kind: Literal["folder"] = Field(default="folder", description="A folder with a caption table.")
    path: Path = Field(
        description="A folder with a caption table (CSV, TSV or JSONL): image, caption, optionally split. In JSONL a "
        "caption may be a list of several. Files whose names end in mp4, m4v, mov, mkv, webm or avi are videos."
    )
    seed: Seed = Field(default=0, description="Seed of the holdout.")
    holdout: HoldoutConfig = Field(default=HoldoutConfig(), description=HOLDOUT)

    def read(self) -> Iterator[Sample]:
        """The samples of a table with the columns `image`, `caption` and, if the data set has splits, `split`.

        `image` is a path relative to the folder; the ending of its name tells whether it is an image or a video. Rows
        of one file become one sample, and so do the captions of a list in JSONL. A row that is not UTF-8, or whose
        caption is no text, becomes a sample of its own, so that only it is rejected.

        Raises:
            BadInput: no such folder; no table, or several; no rows or columns missing in it; a row that does not fit
                the columns; an unknown split.
        """
        require_folder(self.path)
        table = _find_table(self.path)
        entries: dict[str, _Entry] = {}
        unusable: list[Sample] = []
        for line, row in _rows(table):
            name = row["image"].strip()
            split = _split(row, name, f"{table}, line {line}", seed=self.seed, holdout=self.holdout)
            sample = _make_sample(self.path, table, name, _Entry(line, split, row["caption"]))
            if sample.fault or not is_utf8("".join([name, *sample.captions])):
                unusable.append(sample)
                continue
            entry = entries.setdefault(name, _Entry(line, split, []))
            if entry.split != split:
                raise BadInput(
                    f"{table}: {name} is in split {entry.split} on line {entry.line}, in {split} on line {line}"
                )
            entry.captions.extend(sample.captions)
        if not entries and not unusable:
            raise BadInput(f"{table} has no rows below its header")
        return iter([_make_sample(self.path, table, name, entry) for name, entry in entries.items()] + unusable)


@dataclass(slots=True)
class _Entry:
    """What the rows of one file say together."""

    line: int  # of the first row
    split: Split
    captions: Any  # a list of texts, or what the only row holds


def _make_sample(folder: Path, table: Path, name: str, entry: _Entry) -> Sample:
    origin, media = f"{table.name}, line {entry.line}", media_of(name)
    return make_sample(name, folder / name, entry.captions, split=entry.split, origin=origin, media=media)


def _find_table(folder: Path) -> Path:
    """The only table. A hidden file is none, such as `._captions.csv`, which macOS puts beside a file."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    tables = [file for file in files if file.suffix.lower() in TABLE_SUFFIXES]
    if len(tables) != 1:
        names = ", ".join(table.name for table in tables) or "none"
        raise BadInput(f"{folder} must hold one caption table ({', '.join(TABLE_SUFFIXES)}), found {names}")
    return tables[0]


def _split(row: Row, name: str, location: str, *, seed: int, holdout: HoldoutConfig) -> Split:
    if "split" in row:
        return parse_split(row["split"], location)
    return split_by_hash(name, seed=seed, holdout=holdout)


def _rows(table: Path) -> Iterator[tuple[int, Row]]:
    """Rows, each with the number of its last line."""
    return _jsonl_rows(table) if table.suffix.lower() == ".jsonl" else _csv_rows(table)


def _csv_rows(table: Path) -> Iterator[tuple[int, Row]]:
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _tsv_cells(file) if table.suffix.lower() == ".tsv" else _csv_cells(file, table)
        _, header = next(lines, (0, []))
        columns = [name.strip().lower() for name in header]
        _check_columns(columns, f"{table}")
        for number, cells in lines:
            if any(cells[len(columns) :]):
                raise BadInput(
                    f"{table}, line {number}: {len(cells)} cells, but the header has {len(columns)}: put a caption "
                    "with commas between double quotes, and take tabs out"
                )
            row = dict(zip_longest(columns, cells[: len(columns)], fillvalue=""))
            yield number, {name: row[name] for name in TABLE_COLUMNS if name in row}


def _csv_cells(file: Iterable[str], table: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(MAX_CELL_CHARS)
    reader = csv.reader(file, strict=True)
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


def _jsonl_rows(table: Path) -> Iterator[tuple[int, Row]]:
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
        _check_columns(row, location)
        texts = {name: str(row[name] or "") for name in ("image", "split") if name in row}
        yield number, texts | {"caption": row["caption"]}


def _check_columns(columns: Iterable[str], location: str) -> None:
    names = list(columns)
    missing = [name for name in ("image", "caption") if name not in names]
    if missing:
        column_names = ", ".join(map(repr, names)) or "none: the table is empty"
        raise BadInput(f"{location}: no column {' and '.join(missing)}; the columns found are {column_names}")
    if repeated := [name for name in TABLE_COLUMNS if names.count(name) > 1]:
        raise BadInput(f"{location}: several columns are called {' and '.join(repeated)}")
