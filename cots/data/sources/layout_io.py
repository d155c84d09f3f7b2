"""What the sources share: JSON files, names of splits, and where a data set keeps its files."""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cots.data.samples import Sample, Split
from cots.directions import Media
from cots.errors import BadInput

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "restval": "train",  # Karpathy's name for the part of COCO's val that he trains on
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
VIDEO_SUFFIXES = ("mp4", "m4v", "mov", "mkv", "webm", "avi")  # endings of clips; files with others are pictures
PROBED = 20  # names that are looked for to find the folder of the files


def split_named(name: str, where: str) -> Split:
    """The split that a data set calls by that name.

    Raises:
        BadInput: no split is called so; `where` tells the reader the place.
    """
    try:
        return SPLIT_NAMES[name.strip().lower()]
    except KeyError:
        raise BadInput(f"{where}: unknown split {name!r}; known are {', '.join(SPLIT_NAMES)}") from None


def make_sample(
    name: str, content: Path | bytes, captions: Sequence[str], *, split: Split, origin: str, media: Media = "image"
) -> Sample:
    """A sample whose captions are all taken at their word."""
    wrong = (False,) * len(captions)
    return Sample(
        id=name, split=split, media=media, captions=tuple(captions), is_mismatched=wrong, content=content, origin=origin
    )


def media_of(name: str) -> Media:
    """Whether a file is a clip or a picture, by the ending of its name."""
    return "video" if Path(name).suffix.removeprefix(".").lower() in VIDEO_SUFFIXES else "image"


def require_folder(path: Path) -> None:
    """Check that the data set is there.

    Raises:
        BadInput: it is not a folder.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise BadInput(f"{path} {what}: set source.path to the folder that holds the data set")


def read_json(path: Path) -> Any:  # noqa: ANN401 whatever the file holds
    """A JSON file; bytes that are not UTF-8 stay in the texts as lone surrogates.

    Raises:
        BadInput: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig", errors="surrogateescape"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path} is not JSON: line {error.lineno}: {error.msg}") from None


def read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a comma-separated table, these columns alone; bytes that are not UTF-8 stay as lone surrogates.

    Raises:
        BadInput: the file cannot be read, has no such column, or a row ends before it.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in columns if name not in (reader.fieldnames or [])]:
                found = ", ".join(reader.fieldnames or []) or "none"
                raise BadInput(f"{path} has no column {' and '.join(missing)}; the columns found are {found}")
            rows = [(reader.line_num, {name: row[name] for name in columns}) for row in reader]
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except csv.Error as error:
        raise BadInput(f"{path} is not comma-separated text: {error}") from None
    if short := [line for line, row in rows if None in row.values()]:
        raise BadInput(f"{path}, line {short[0]}: the row ends before its last column")
    return [row for _, row in rows]


@contextmanager
def laid_out_as(layout: str, path: Path) -> Iterator[None]:
    """Turn a missing key or a wrong type in a data set's JSON into one line.

    Raises:
        BadInput: the block below met either.
    """
    try:
        yield
    except KeyError as error:
        raise BadInput(f"{path} is not in the {layout} layout: an entry has no {error}") from None
    except (TypeError, AttributeError) as error:
        raise BadInput(f"{path} is not in the {layout} layout: {error}") from None


def folder_of(root: Path, names: Sequence[str]) -> Path:
    """Which folder the names are relative to: the root or one directly below it; the root, if none has any of them."""
    below = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in (root, *below):
        if any((folder / name).is_file() for name in names[:PROBED]):
            return folder
    return root
