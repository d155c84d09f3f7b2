"""A folder of images and videos: with a caption table (CSV, TSV, JSONL), with text files beside them, or alone."""

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cots.config_base import Config, Seed
from cots.data.samples import Sample, Split, is_utf8
from cots.data.sources.holdout import HOLDOUT, HoldoutConfig, split_by_hash
from cots.data.sources.layout_io import MEDIA_SUFFIXES, make_sample, media_of, parse_json, parse_split, require_folder
from cots.errors import BadInput

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
TABLE_COLUMNS = ("image", "caption", "split")
MAX_TEXT_BYTES = 1 << 24  # of a text file beside an image
MAX_CELL_CHARS = 1 << 24  # in a longer cell the closing quotation mark is missing
Row = dict[str, Any]  # texts; a caption of JSONL is whatever the file holds


class FolderSourceConfig(Config):
    """A folder of images and videos, with or without captions."""

    kind: Literal["folder"] = Field(default="folder", description="A folder of images and videos.")
    path: Path = Field(
        description="A folder with a caption table (CSV, TSV or JSONL): image, caption, optionally split. In JSONL a "
        "caption may be a list of several. Files whose names end in mp4, m4v, mov, mkv, webm or avi are videos. "
        "Without a table, every image and video below the folder is a sample; its captions are the lines of the .txt "
        "file of the same name beside it, if there is one."
    )
    include_unlisted: bool = Field(
        default=False,
        description="Also take the images and videos below the folder that the table does not name. They have no "
        "captions: they are searched, but never trained or measured on.",
        json_schema_extra={"since": "0.3.0"},
    )
    seed: Seed = Field(default=0, description="Seed of the holdout.")
    holdout: HoldoutConfig = Field(default=HoldoutConfig(), description=HOLDOUT)

    def read(self) -> Iterator[Sample]:
        """The samples of the table, or, if there is none, of the files below the folder.

        The table has the columns `image`, `caption` and, if the data set has splits, `split`.

        `image` is a path relative to the folder; the ending of its name tells whether it is an image or a video. Rows
        of one file become one sample, and so do the captions of a list in JSONL. A row that is not UTF-8, or whose
        caption is no text, becomes a sample of its own, so that only it is rejected.

        Raises:
            BadInput: no such folder; neither table nor images; several tables; no rows or columns missing in the table;
                a row that does not fit the columns; an unknown split.
        """
        require_folder(self.path)
        table = _find_table(self.path)
        listed = [] if table is None else self._read_table(table)
        if table is not None and not self.include_unlisted:
            return iter(listed)
        names = {os.path.normpath(sample.id) for sample in listed}
        unlisted = [self._read_file(name, beside=table is None) for name in find_media(self.path) if name not in names]
        if not listed and not unlisted:
            raise BadInput(f"{self.path} holds no caption table ({', '.join(TABLE_SUFFIXES)}), no image and no video")
        return iter(listed + unlisted)

    def _read_file(self, name: str, *, beside: bool) -> Sample:
        """A sample that no table names; its captions are the lines of the text file beside it, if asked for."""
        text = (self.path / name).with_suffix(".txt")
        captions = _read_lines(text) if beside and text.is_file() else ()
        return make_sample(
            name,
            self.path / name,
            captions,
            split=split_by_hash(name, seed=self.seed, holdout=self.holdout),
            origin=text.name if captions else name,
            media=media_of(name),
        )

    def _read_table(self, table: Path) -> list[Sample]:
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
        return [_make_sample(self.path, table, name, entry) for name, entry in entries.items()] + unusable


@dataclass(slots=True)
class _Entry:
    """What the rows of one file say together."""

    line: int  # of the first row
    split: Split
    captions: Any  # a list of texts, or what the only row holds


def _make_sample(folder: Path, table: Path, name: str, entry: _Entry) -> Sample:
    origin, media = f"{table.name}, line {entry.line}", media_of(name)
    return make_sample(name, folder / name, entry.captions, split=entry.split, origin=origin, media=media)


def _read_lines(text: Path) -> list[str]:
    """The captions of a text file: its lines that are not blank."""
    if text.stat().st_size > MAX_TEXT_BYTES:
        raise BadInput(f"{text} has more than {MAX_TEXT_BYTES} bytes: it holds no captions")
    lines = text.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    return [line for line in lines if line.strip()]


def find_media(folder: Path) -> Iterator[str]:
    """Names of all images and videos below a folder, relative to it, sorted; nothing hidden, and no linked folder."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower().removeprefix(".") in MEDIA_SUFFIXES:
                yield (Path(path) / name).relative_to(folder).as_posix()


def _find_table(folder: Path) -> Path | None:
    """The only table, or None. A hidden file is none, such as `._captions.csv`, which macOS puts beside a file."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    tables = [file for file in files if file.suffix.lower() in TABLE_SUFFIXES]
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise BadInput(f"{folder} must hold one caption table ({', '.join(TABLE_SUFFIXES)}), found {names}")
    return tables[0] if tables else None


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
