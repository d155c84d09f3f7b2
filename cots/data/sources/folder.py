"""A plain folder of pictures and clips with a caption table beside them: CSV, TSV or JSONL."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from pydantic import Field

from cots.config_base import Config
from cots.data.samples import Sample, Split, is_utf8
from cots.data.sources.holdout import HOLDOUT, HoldoutConfig, split_by_hash
from cots.data.sources.layout_io import make_sample, media_of, require_folder, split_named
from cots.errors import BadInput

TABLES = (".csv", ".tsv", ".jsonl")
COLUMNS = ("image", "caption", "split")
Row = dict[str, str]


class FolderSourceConfig(Config):
    """A folder with a caption table that names images and videos relative to it."""

    kind: Literal["folder"] = Field(default="folder", description="A folder with a caption table.")
    path: Path = Field(
        description="A folder with a caption table (CSV, TSV or JSONL): image, caption and maybe split. "
        "Files whose names end in mp4, m4v, mov, mkv, webm or avi are videos."
    )
    seed: int = Field(default=0, description="Of the holdout.")
    holdout: HoldoutConfig = Field(default=HoldoutConfig(), description=HOLDOUT)

    def read(self) -> Iterator[Sample]:
        """The samples of the folder."""
        return read_folder(self.path, seed=self.seed, holdout=self.holdout)


@dataclass(slots=True)
class _Picture:
    """What the rows of one picture say together."""

    line: int
    split: Split
    captions: list[str] = field(default_factory=list)


def read_folder(path: Path, *, seed: int, holdout: HoldoutConfig) -> Iterator[Sample]:
    """The samples of a table with the columns image, caption and, if the splits are given, split.

    Column `image` names pictures and clips relative to the folder; a file whose name ends as a clip's is one.
    Rows of one file become one sample. A row that is not UTF-8 becomes a sample of its own, which is then rejected.

    Args:
        path: the folder, which holds one table.
        seed: of the split, where the table has no such column.
        holdout: fractions of val and test in that case.

    Raises:
        BadInput: no such folder; no table, several, or one without rows or without these columns; an unknown split.
    """
    require_folder(path)
    table = _table(path)
    pictures: dict[str, _Picture] = {}
    broken: list[Sample] = []
    for line, row in _rows(table):
        name, where = row["image"].strip(), f"{table.name}, line {line}"
        split = _split(row, name, f"{table}, line {line}", seed=seed, holdout=holdout)
        if not is_utf8(name + row["caption"]):
            broken.append(_sample(path, name, [row["caption"]], split, where))
            continue
        picture = pictures.setdefault(name, _Picture(line, split))
        if picture.split != split:
            raise BadInput(
                f"{table}: {name} is in split {picture.split} on line {picture.line}, in {split} on line {line}"
            )
        picture.captions.append(row["caption"])
    if not pictures and not broken:
        raise BadInput(f"{table} has no rows below its header")
    whole = [
        _sample(path, name, found.captions, found.split, f"{table.name}, line {found.line}")
        for name, found in pictures.items()
    ]
    return iter(whole + broken)


def _sample(folder: Path, name: str, captions: Sequence[str], split: Split, origin: str) -> Sample:
    return make_sample(name, folder / name, captions, split=split, origin=origin, media=media_of(name))


def _table(folder: Path) -> Path:
    tables = sorted(file for file in folder.iterdir() if file.suffix.lower() in TABLES)
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "none"
        raise BadInput(f"{folder} must hold one caption table ({', '.join(TABLES)}), found {found}")
    return tables[0]


def _split(row: Row, name: str, where: str, *, seed: int, holdout: HoldoutConfig) -> Split:
    if "split" in row:
        return split_named(row["split"], where)
    return split_by_hash(name, seed=seed, holdout=holdout)


def _rows(table: Path) -> Iterator[tuple[int, Row]]:
    """Rows with the number of the line on which they end."""
    return _jsonl_rows(table) if table.suffix.lower() == ".jsonl" else _csv_rows(table)


def _csv_rows(table: Path) -> Iterator[tuple[int, Row]]:
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _tsv_cells(file) if table.suffix.lower() == ".tsv" else _csv_cells(file, table)
        _, header = next(lines, (0, []))
        columns = [name.strip().lower() for name in header]
        _check_columns(columns, f"{table}")
        for number, cells in lines:
            row = dict(zip_longest(columns, cells[: len(columns)], fillvalue=""))
            yield number, {name: row[name] for name in COLUMNS if name in row}


def _csv_cells(file: Iterable[str], table: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, strict=True)
    try:
        yield from ((reader.line_num, cells) for cells in reader if cells)
    except csv.Error as error:
        raise BadInput(f"{table}, line {reader.line_num}: {error}; save it as comma-separated UTF-8") from None


def _tsv_cells(file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Tabs part cells and nothing else does: an odd quotation mark must not swallow the lines that follow."""
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield number, [_unquoted(cell) for cell in line.rstrip("\r\n").split("\t")]


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _jsonl_rows(table: Path) -> Iterator[tuple[int, Row]]:
    lines = table.read_bytes().decode("utf-8-sig", errors="surrogateescape").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{table}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{where}: not JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise BadInput(f"{where}: not a JSON object")
        _check_columns(row, where)
        yield number, {name: str(row[name] or "") for name in COLUMNS if name in row}


def _check_columns(columns: Iterable[str], where: str) -> None:
    found = list(columns)
    missing = [name for name in ("image", "caption") if name not in found]
    if missing:
        told = ", ".join(map(repr, found)) or "none: the table is empty"
        raise BadInput(f"{where}: no column {' and '.join(missing)}; the columns found are {told}")
