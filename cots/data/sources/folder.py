"""A folder of images and videos with a caption table: CSV, TSV or JSONL."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from pydantic import Field

from cots.config_base import Config
from cots.data.samples import Sample, Split, is_utf8
from cots.data.sources.holdout import HOLDOUT, HoldoutConfig, split_by_hash
from cots.data.sources.layout_io import make_sample, media_of, parse_split, require_folder
from cots.errors import BadInput

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
TABLE_COLUMNS = ("image", "caption", "split")
Row = dict[str, str]


class FolderSourceConfig(Config):
    """A folder with a caption table that names images and videos relative to it."""

    kind: Literal["folder"] = Field(default="folder", description="A folder with a caption table.")
    path: Path = Field(
        description="A folder with a caption table (CSV, TSV or JSONL): image, caption, optionally split. "
        "Files whose names end in mp4, m4v, mov, mkv, webm or avi are videos."
    )
    seed: int = Field(default=0, description="Seed of the holdout.")
    holdout: HoldoutConfig = Field(default=HoldoutConfig(), description=HOLDOUT)

    def read(self) -> Iterator[Sample]:
        """The samples of a table with the columns `image`, `caption` and, if the data set has splits, `split`.

        `image` is a path relative to the folder; the ending of its name tells whether it is an image or a video. Rows
        of one file become one sample. A row that is not UTF-8 becomes a sample of its own, so that only it is rejected.

        Raises:
            BadInput: no such folder; no table, or several; no rows or columns missing in it; an unknown split.
        """
        require_folder(self.path)
        table = _find_table(self.path)
        entries: dict[str, _Entry] = {}
        not_utf8: list[Sample] = []
        for line, row in _rows(table):
            name = row["image"].strip()
            split = _split(row, name, f"{table}, line {line}", seed=self.seed, holdout=self.holdout)
            if not is_utf8(name + row["caption"]):
                not_utf8.append(_make_sample(self.path, table, name, _Entry(line, split, [row["caption"]])))
                continue
            entry = entries.setdefault(name, _Entry(line, split))
            if entry.split != split:
                raise BadInput(
                    f"{table}: {name} is in split {entry.split} on line {entry.line}, in {split} on line {line}"
                )
            entry.captions.append(row["caption"])
        if not entries and not not_utf8:
            raise BadInput(f"{table} has no rows below its header")
        return iter([_make_sample(self.path, table, name, entry) for name, entry in entries.items()] + not_utf8)


@dataclass(slots=True)
class _Entry:
    """What the rows of one file say together."""

    line: int  # of the first row
    split: Split
    captions: list[str] = field(default_factory=list)


def _make_sample(folder: Path, table: Path, name: str, entry: _Entry) -> Sample:
    origin, media = f"{table.name}, line {entry.line}", media_of(name)
    return make_sample(name, folder / name, entry.captions, split=entry.split, origin=origin, media=media)


def _find_table(folder: Path) -> Path:
    tables = sorted(file for file in folder.iterdir() if file.suffix.lower() in TABLE_SUFFIXES)
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
            row = dict(zip_longest(columns, cells[: len(columns)], fillvalue=""))
            yield number, {name: row[name] for name in TABLE_COLUMNS if name in row}


def _csv_cells(file: Iterable[str], table: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, strict=True)
    try:
        yield from ((reader.line_num, cells) for cells in reader if cells)
    except csv.Error as error:
        raise BadInput(f"{table}, line {reader.line_num}: {error}; save it as comma-separated UTF-8") from None


def _tsv_cells(file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Split cells at tabs alone, because an unmatched quotation mark must not swallow the lines that follow."""
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield number, [_unquote(cell) for cell in line.rstrip("\r\n").split("\t")]


def _unquote(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _jsonl_rows(table: Path) -> Iterator[tuple[int, Row]]:
    lines = table.read_bytes().decode("utf-8-sig", errors="surrogateescape").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        location = f"{table}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{location}: not JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise BadInput(f"{location}: not a JSON object")
        _check_columns(row, location)
        yield number, {name: str(row[name] or "") for name in TABLE_COLUMNS if name in row}


def _check_columns(columns: Iterable[str], location: str) -> None:
    names = list(columns)
    missing = [name for name in ("image", "caption") if name not in names]
    if missing:
        column_names = ", ".join(map(repr, names)) or "none: the table is empty"
        raise BadInput(f"{location}: no column {' and '.join(missing)}; the columns found are {column_names}")
