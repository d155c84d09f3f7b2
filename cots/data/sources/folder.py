"""A folder of images and videos: with a caption table, with text files beside them, or alone."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cots.config_base import Config, Seed
from cots.data.bucket import in_bucket
from cots.data.descriptions import captions_by_label, read_answers
from cots.data.language_tags import mostly_tags
from cots.data.location import Location
from cots.data.samples import Fault, Sample, Split, is_utf8
from cots.data.sources.caption_table import LANGUAGE, TABLE_SUFFIXES, Row, read_rows
from cots.data.sources.holdout import HOLDOUT, HoldoutConfig, split_by_hash
from cots.data.sources.labels import caption_by_label, label_of, label_of_file
from cots.data.sources.layout_io import (
    MEDIA_SUFFIXES,
    SPLIT_NAMES,
    is_file,
    locate_images,
    make_sample,
    media_of,
    parse_split,
    require_folder,
)
from cots.errors import BadInput

MAX_TEXT_BYTES = 1 << 24  # of a text file beside an image
NUM_INSPECTED = 1000  # rows of a table that show what its column `language` is


class FolderSourceConfig(Config):
    """A folder of images and videos, with or without captions."""

    kind: Literal["folder"] = Field(default="folder", description="A folder of images and videos.")
    path: Location = Field(
        description="A folder with a caption table (CSV, TSV, JSONL or Parquet): image, caption, optionally split. In "
        "JSONL and Parquet a caption may be a list of several. Files whose names end in mp4, m4v, mov, mkv, webm or "
        "avi are videos. Without a table, every image and video below the folder is a sample; its captions are the "
        "lines of the .txt file of the same name beside it, if there is one."
    )
    table: str | None = Field(
        default=None,
        description="Name of the caption table in the folder. null: the only one, or none. A pattern such as "
        "`*/metadata.csv` stands for a table in each subfolder, with paths relative to it; subfolders train, val and "
        "test are these splits.",
        json_schema_extra={"since": "0.3.0"},
    )
    image_column: str = Field(
        default="image",
        description="Column with the paths of images and videos, relative to the folder or to one directly below it.",
        json_schema_extra={"since": "0.3.0"},
    )
    caption_column: str | None = Field(
        default="caption",
        description="Column with the captions; null: there are none. Further columns are kept as metadata of samples, "
        "as far as they fit in 10,000 characters.",
        json_schema_extra={"since": "0.3.0"},
    )
    language_column: str | None = Field(
        default=LANGUAGE,
        description="Column with the language of each caption, a BCP 47 tag such as en, pt-BR or zh-Hans; empty: not "
        "known; in JSONL and Parquet also a list, one for each caption of the row. A table may lack a column "
        "`language`, and one with other values than tags, such as English, is metadata. null: none is read, and one "
        "called `language` is metadata. See [languages.md](languages.md).",
        json_schema_extra={"since": "0.3.0"},
    )
    label_column: str | None = Field(
        default=None,
        description="Column with the label of each image or video, such as its class; kept as metadata. Without a "
        "table: the name under which metadata keep the folder of a file, as in `dog/1.jpg` or `train/dog/1.jpg`. A "
        "sample without captions has its label as its only one. See [labels.md](labels.md).",
        json_schema_extra={"since": "0.3.0"},
    )
    descriptions: str | None = Field(
        default=None,
        description="File below the folder with captions made from labels, as `cots data describe` writes it: training "
        "samples have them beside their own captions, marked as made; others never. null: none.",
        json_schema_extra={"since": "0.3.0"},
    )
    include_unlisted: bool = Field(
        default=False,
        description="Also take the images and videos below the folder that the table does not name. They have no "
        "captions: they are searched, but never trained or measured on.",
        json_schema_extra={"since": "0.3.0"},
    )
    seed: Seed = Field(default=0, description="Seed of the holdout.")
    holdout: HoldoutConfig = Field(default=HoldoutConfig(), description=HOLDOUT)

    @field_validator("table", "descriptions")
    @classmethod
    def _require_relative(cls, name: str | None) -> str | None:
        if name is not None and Path(name).is_absolute():
            raise ValueError("give its path relative to the folder")
        return name

    @field_validator("table")
    @classmethod
    def _require_pattern(cls, table: str | None) -> str | None:
        if table is not None and any("**" in part != "**" for part in Path(table).parts):
            raise ValueError("`**` stands for any folders, and for nothing else beside it")
        return table

    @model_validator(mode="after")
    def _require_label_column(self) -> Self:
        if self.descriptions is not None and self.label_column is None:
            raise ValueError("descriptions belong to labels: name the column with these in label_column")
        if self.descriptions is not None and ".." in Path(self.descriptions).parts:
            raise ValueError("descriptions: name a file below the folder, without ..")
        if self.label_column and self.label_column in (self.image_column, self.caption_column, self.language_column):
            raise ValueError(
                f"label_column: {self.label_column!r} is another column already; caption_column may be null, because a "
                "sample without captions has its label as its only one"
            )
        return self

    def read(self) -> Iterator[Sample]:
        """The samples of the table or, if there is none, of the files below the folder.

        A file's suffix tells whether it is an image or a video. All rows of a file become one sample with several
        captions, as does a row with a list of captions. A row that is not UTF-8, names no image, whose caption is no
        text, or whose label is not that of an earlier row, becomes a sample of its own, so that the file's other rows
        are not rejected with it.

        Raises:
            BadInput: no such folder; neither table nor images; several tables; a table without rows or without a
                required column; a row that does not fit the header; an unknown split; no label; no such descriptions.
        """
        require_folder(self.path)
        samples = self._read_samples()
        if self.label_column is None:
            return iter(samples)
        if not any(self.label_column in sample.metadata for sample in samples):
            names = ", ".join(dict.fromkeys(name for sample in samples for name in sample.metadata)) or "none"
            raise BadInput(f"{self.path}: no sample has a label in column {self.label_column}; its columns are {names}")
        return iter(caption_by_label(samples, self.label_column, self._read_descriptions(samples, self.label_column)))

    def _read_descriptions(self, samples: list[Sample], label_column: str) -> dict[str, tuple[str, ...]]:
        """The captions made from labels; none if no file is named.

        Raises:
            BadInput: no such file, it is no list of descriptions, or it describes no label of a training sample.
        """
        if self.descriptions is None:
            return {}
        path = self.path / self.descriptions
        made = captions_by_label(read_answers(path))
        if not any(label_of(sample.metadata, label_column) in made for sample in samples if sample.split == "train"):
            raise BadInput(
                f"{path} describes no label of a training sample, but {', '.join(made) or 'none at all':.100}: write "
                "it with `cots data describe`, or set source.descriptions to null"
            )
        return made

    def _read_samples(self) -> list[Sample]:
        tables = self._find_tables()
        listed = list(locate_images(self._read_tables(tables), self.path)) if tables else []
        if tables and not self.include_unlisted:
            return listed
        files = {os.path.normpath(sample.content) for sample in listed if isinstance(sample.content, PurePath)}
        unreadable: list[OSError] = []
        found = find_media(self.path, unreadable.append)
        names = [name for name in found if os.path.normpath(self.path / name) not in files]
        listed += map(self._unreadable_folder, unreadable)
        if not listed and not names:
            raise BadInput(f"{self.path} holds no caption table ({', '.join(TABLE_SUFFIXES)}), no image and no video")
        return [*listed, *(self._read_file(name, listed=bool(tables)) for name in names)]

    def _find_tables(self) -> list[Path]:
        """The caption table, or all tables that a pattern matches; an empty list if the folder has none.

        Raises:
            BadInput: the named table does not exist, or there are several and `table` names none.
        """
        if self.table is None:
            tables = [table for table in find_tables(self.path) if table.name != self.descriptions]
            if len(tables) > 1:
                names = ", ".join(table.name for table in tables)
                raise BadInput(f"{self.path} must hold one caption table, found {names}: name one in source.table")
            return tables
        tables = sorted(self.path.glob(self.table)) if self._is_pattern else [self.path / self.table]
        if tables and all(table.is_file() for table in tables):
            return tables
        raise BadInput(f"no caption table {self.path / self.table}: set source.table to a file there, or to null")

    def _read_file(self, name: str, *, listed: bool) -> Sample:
        """Make a sample of a file that no table names; without a table the text file beside it holds its captions."""
        text = (self.path / name).with_suffix(".txt")
        captions = self._read_lines(text) if not listed and text.is_file() else []
        split, label = label_of_file(name) if self.label_column and not listed else (None, None)
        return make_sample(
            name,
            self.path / name,
            captions if isinstance(captions, list) else [],
            split=split or split_by_hash(name, seed=self.seed, holdout=self.holdout),
            origin=text.relative_to(self.path).as_posix() if captions else name,
            media=media_of(name),
            listing=text if captions else None,
            fault=captions if isinstance(captions, Fault) else None,
            metadata={self.label_column: label} if self.label_column and label else None,
        )

    def _unreadable_folder(self, error: OSError) -> Sample:
        """Make a sample of a folder that cannot be listed, so that what it holds is not left out without a word."""
        name = Path(error.filename).relative_to(self.path).as_posix()
        fault = Fault("no such file", f"the folder cannot be listed: {error.strerror}")
        return make_sample(name, b"", [], split="train", origin=name, fault=fault)

    def _read_lines(self, text: Path) -> list[str] | Fault:
        """Read the captions of a text file, its lines that are not blank; or say why it cannot be read."""
        if text.stat().st_size > MAX_TEXT_BYTES:
            return Fault("caption not text", f"{text.name} has more than {MAX_TEXT_BYTES} bytes")
        lines = text.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        return [line for line in lines if line.strip()]

    def _find_language_column(self, table: Path) -> str | None:
        """The column with the languages of captions; one that is only called so by chance does not count."""
        if self.language_column != LANGUAGE:
            return self.language_column
        rows = read_rows(table, image=self.image_column, caption=self.caption_column, language=LANGUAGE)
        return LANGUAGE if mostly_tags(row.language for row in islice(rows, NUM_INSPECTED)) else None

    def _read_tables(self, tables: list[Path]) -> list[Sample]:
        entries: dict[str, _Entry] = {}
        unusable: list[Sample] = []
        for table in tables:
            language = self._find_language_column(table)
            for row in read_rows(table, image=self.image_column, caption=self.caption_column, language=language):
                name, split = self._name(row, table), self._split(row, table)
                origin = f"{table.relative_to(self.path)}, {row.place}"
                sample = self._make_sample(name, _Entry(table, origin, split, row.caption, row.metadata, row.language))
                if not row.image:
                    sample = replace(sample, id=origin, fault=Fault("not in the layout", "the row names no image"))
                if sample.fault or not is_utf8("".join([name, *sample.captions])):
                    unusable.append(sample)
                    continue
                entry = entries.setdefault(name, _Entry(table, origin, split, [], row.metadata, []))
                if entry.split != split:
                    raise BadInput(
                        f"{self.path}: {name} is in split {entry.split} in {entry.origin}, in {split} in {origin}"
                    )
                if fault := self._merge_label(entry, row):
                    unusable.append(replace(sample, fault=fault))
                    continue
                entry.captions.extend(sample.captions)
                entry.languages.extend(sample.languages or [""] * len(sample.captions))
        if not entries and not unusable:
            raise BadInput(f"{tables[0]} has no rows below its header")
        return [self._make_sample(name, entry) for name, entry in entries.items()] + unusable

    def _merge_label(self, entry: "_Entry", row: Row) -> Fault | None:
        """Give an image the label of its first row that has one; a later row with another label cannot be used."""
        if self.label_column is None or not (label := label_of(row.metadata, self.label_column)):
            return None
        known = label_of(entry.metadata, self.label_column)
        if known and label != known:
            return Fault("not in the layout", f"its label is {label}, but an earlier row has {known}")
        entry.metadata[self.label_column] = row.metadata[self.label_column]
        return None

    def _name(self, row: Row, table: Path) -> str:
        """The path of a row's image, relative to the folder. It may be written as on Windows, with backslashes."""
        name = f"{table.parent.relative_to(self.path).as_posix()}/{row.image}" if self._is_pattern else row.image
        return name if "\\" not in name or is_file(self.path / name) else name.replace("\\", "/")

    def _split(self, row: Row, table: Path) -> Split:
        """The split that the row names, or its table's subfolder, or one by the hash of the name."""
        if row.split is not None:
            return parse_split(row.split, f"{table}, {row.place}")
        if self._is_pattern and table.parent.name.lower() in SPLIT_NAMES:
            return parse_split(table.parent.name, str(table))
        return split_by_hash(self._name(row, table), seed=self.seed, holdout=self.holdout)

    @property
    def _is_pattern(self) -> bool:
        return "*" in (self.table or "")

    def _make_sample(self, name: str, entry: "_Entry") -> Sample:
        return make_sample(
            name,
            self.path / name,
            entry.captions,
            split=entry.split,
            origin=entry.origin,
            media=media_of(name),
            listing=entry.table,
            metadata=entry.metadata,
            languages=entry.languages,
        )


@dataclass(slots=True)
class _Entry:
    """The merged rows of one image or video."""

    table: Path  # of the first row
    origin: str  # likewise
    split: Split
    captions: Any  # a list of texts, or the cell of a single row
    metadata: dict[str, Any]  # of the first row, and the label of the first that has one
    languages: Any  # as `captions`


def find_media(folder: Path, on_error: Callable[[OSError], object] | None = None) -> Iterator[str]:
    """Sorted paths of the images and videos below a folder, relative to it, without hidden files and linked folders.

    Args:
        folder: to look in.
        on_error: is told of folders that cannot be listed; by default they are passed over.
    """
    if in_bucket(folder):
        yield from (name for name in folder.find() if not _is_hidden(name) and _is_media(name))
        return
    for path, folders, files in os.walk(folder, onerror=on_error):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and _is_media(name):
                yield (Path(path) / name).relative_to(folder).as_posix()


def _is_media(name: str) -> bool:
    return Path(name).suffix.lower().removeprefix(".") in MEDIA_SUFFIXES


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def find_tables(folder: Path) -> list[Path]:
    """The caption tables in a folder, without hidden files such as macOS's `._captions.csv`."""
    tables = (file for file in folder.iterdir() if file.suffix.lower() in TABLE_SUFFIXES)
    return sorted(file for file in tables if file.is_file() and not file.name.startswith("."))
