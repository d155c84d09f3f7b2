"""What readers of several layouts share: JSON and CSV files, names of splits, folders."""

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
    "restval": "train",  # Karpathy's name for the images of COCO's val that he adds to train
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
VIDEO_SUFFIXES = ("mp4", "m4v", "mov", "mkv", "webm", "avi")  # files with another ending are images
MAX_PROBED = 20  # files that are looked for to find their folder


def parse_split(name: str, location: str) -> Split:
    """The split that a data set calls by this name.

    Args:
        name: such as `validation`, in any case.
        location: where the name stands, for the error message.

    Raises:
        BadInput: the name is unknown.
    """
    try:
        return SPLIT_NAMES[name.strip().lower()]
    except KeyError:
        raise BadInput(f"{location}: unknown split {name!r}; known splits are {', '.join(SPLIT_NAMES)}") from None


def make_sample(
    name: str, content: Path | bytes, captions: Sequence[str], *, split: Split, origin: str, media: Media = "image"
) -> Sample:
    """A sample with none of its captions known to be mismatched."""
    return Sample(
        id=name,
        split=split,
        media=media,
        captions=tuple(captions),
        is_mismatched=(False,) * len(captions),
        content=content,
        origin=origin,
    )


def media_of(name: str) -> Media:
    """Whether a file is an image or a video, by the ending of its name."""
    return "video" if Path(name).suffix.removeprefix(".").lower() in VIDEO_SUFFIXES else "image"


def require_folder(path: Path) -> None:
    """Check that the data set's folder exists.

    Raises:
        BadInput: it does not, or is a file.
    """
    if not path.is_dir():
        problem = "is a file" if path.exists() else "does not exist"
        raise BadInput(f"{path} {problem}: set source.path to the folder that holds the data set")


def read_json(path: Path) -> Any:  # noqa: ANN401 whatever the file holds
    """Read a JSON file; a byte that is not UTF-8 becomes a lone surrogate.

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
    """Read some columns of a comma-separated table; a byte that is not UTF-8 becomes a lone surrogate.

    Raises:
        BadInput: the file cannot be read, lacks a column, or has a row that is too short.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in columns if name not in (reader.fieldnames or [])]:
                column_names = ", ".join(reader.fieldnames or []) or "none"
                raise BadInput(f"{path} has no column {' and '.join(missing)}; the columns found are {column_names}")
            rows = [(reader.line_num, {name: row[name] for name in columns}) for row in reader]
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except csv.Error as error:
        raise BadInput(f"{path} is not comma-separated text: {error}") from None
    if short := [line for line, row in rows if None in row.values()]:
        raise BadInput(f"{path}, line {short[0]}: the row ends before its last column")
    return [row for _, row in rows]


@contextmanager
def layout_errors(layout: str, path: Path) -> Iterator[None]:
    """Turn a missing key or a wrong type in a data set's JSON into a message of one line.

    Args:
        layout: name of the expected layout.
        path: the JSON file.

    Raises:
        BadInput: the `with` block raised such an error.
    """
    try:
        yield
    except KeyError as error:
        raise BadInput(f"{path} is not in the {layout} layout: an entry has no {error}") from None
    except (TypeError, AttributeError) as error:
        raise BadInput(f"{path} is not in the {layout} layout: {error}") from None


def find_base_folder(root: Path, names: Sequence[str]) -> Path:
    """The folder that the files' names are relative to: the root or one directly below; the root if no file exists."""
    subfolders = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in (root, *subfolders):
        if any((folder / name).is_file() for name in names[:MAX_PROBED]):
            return folder
    return root
