"""What the readers of several layouts share: samples, names of splits, JSON and CSV files."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from cots.data.language_tags import parse_languages
from cots.data.samples import Fault, Sample, Split
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
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "jfif", "gif", "avif", "bmp", "tif", "tiff", "jp2", "ppm", "pgm", "pbm")
VIDEO_SUFFIXES = ("mp4", "m4v", "mov", "mkv", "webm", "avi")  # files that a table names with another ending are images
MEDIA_SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
MAX_PROBED = 20  # images that are looked for to find their folder
LAYOUT_ERRORS = (KeyError, TypeError, AttributeError)  # of code that reads JSON of another layout


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
    name: str,
    content: Path | bytes,
    captions: object,
    *,
    split: Split,
    origin: str,
    media: Media = "image",
    listing: Path | None = None,
    fault: Fault | None = None,
    metadata: Mapping[str, Any] | None = None,
    languages: object = (),
) -> Sample:
    """A sample with none of its captions known to be mismatched.

    Args:
        name: its id.
        content: a file, or bytes.
        captions: as for `parse_captions`; what that refuses becomes the sample's fault.
        split: train, val or test.
        origin: where it came from, for people.
        media: image or video.
        listing: the file that names it or holds its captions.
        fault: why it cannot be used, if that is known already.
        metadata: what else the source says about it, by name.
        languages: of the captions, as for `parse_languages`; what that refuses becomes the sample's fault.
    """
    texts: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    try:
        texts = parse_captions(captions)
        tags = parse_languages(languages, num_captions=len(texts))
    except TypeError as error:
        fault = fault or Fault("caption not text", str(error))
    except ValueError as error:
        fault = fault or Fault("not in the layout", str(error))
    return Sample(
        id=name,
        split=split,
        media=media,
        captions=texts,
        is_mismatched=(False,) * len(texts),
        content=content,
        origin=origin,
        listing=listing,
        fault=fault,
        metadata=metadata or {},
        languages=tags,
    )


def parse_captions(value: object) -> tuple[str, ...]:
    """The captions in a JSON value: a text, null (a blank caption), or a list of these.

    Raises:
        TypeError: it is or contains something else.
    """
    texts: list[str] = []
    for text in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(text, str | None):
            raise TypeError(f"{type(text).__name__} instead of a text")
        texts.append(text or "")
    return tuple(texts)


def media_of(name: str) -> Media:
    """Whether a file is an image or a video, by the ending of its name."""
    return "video" if Path(name).suffix.removeprefix(".").lower() in VIDEO_SUFFIXES else "image"


def require_folder(path: Path, fix: str = "set source.path to the folder that holds the data set") -> None:
    """Check that a folder exists.

    Args:
        path: of the folder.
        fix: what to do if it does not, for the error message.

    Raises:
        BadInput: it does not, or is a file.
    """
    if not path.is_dir():
        problem = "is a file" if path.exists() else "does not exist"
        raise BadInput(f"{path} {problem}: {fix}")


def read_json(path: Path) -> Any:  # noqa: ANN401 whatever the file holds
    """Read a JSON file; a byte that is not UTF-8 becomes a lone surrogate.

    Raises:
        BadInput: the file cannot be read or is not JSON.
    """
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path} is not JSON: line {error.lineno}: {error.msg}") from None
    except ValueError as error:
        raise BadInput(f"{path} is not usable as JSON: {error}") from None


def parse_json(data: bytes) -> Any:  # noqa: ANN401 whatever it holds
    """Parse JSON; a byte that is not UTF-8 becomes a lone surrogate.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(data.decode("utf-8-sig", errors="surrogateescape"))
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None


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
    except LAYOUT_ERRORS as error:
        raise BadInput(f"{path} is not in the {layout} layout: {_describe(error)}") from None


def parse_entries(entries: Iterable[Any], parse: Callable[[Any], Sample], *, layout: str, path: Path) -> list[Sample]:
    """Parse the entries of a data set's JSON; one that lacks a key or has a wrong type becomes an unusable sample.

    Args:
        entries: in the file's order.
        parse: makes a sample of an entry.
        layout: name of the expected layout.
        path: the JSON file.

    Raises:
        BadInput: no entry is in the layout.
    """
    samples, errors = [], []
    for number, entry in enumerate(entries):
        try:
            samples.append(replace(parse(entry), listing=path))
        except LAYOUT_ERRORS as error:
            errors.append(error)
            name, fault = f"{path.name}: entry {number}", Fault("not in the layout", _describe(error))
            samples.append(make_sample(name, b"", (), split="train", origin=name, listing=path, fault=fault))
    if errors and len(errors) == len(samples):
        raise BadInput(f"{path} is not in the {layout} layout: {_describe(errors[0])}")
    return samples


def _describe(error: Exception) -> str:
    return f"an entry has no {error}" if isinstance(error, KeyError) else str(error)


def locate_images(samples: Sequence[Sample], root: Path) -> Iterator[Sample]:
    """Set the content of samples whose ids are paths of images, relative to `find_base`."""
    base = find_base((sample.id for sample in samples if not sample.fault), root)
    return iter([replace(sample, content=base / sample.id) for sample in samples])


def find_base(names: Iterable[str], root: Path) -> Path:
    """The folder that paths of images are relative to: the root, or one directly below it.

    It is the first of these that holds one of the first `MAX_PROBED` images; the root if none does.
    """
    probed = list(islice(names, MAX_PROBED))
    if any(is_file(root / name) for name in probed):
        return root
    subfolders = sorted(path for path in root.iterdir() if path.is_dir())
    return next((folder for folder in subfolders if any(is_file(folder / name) for name in probed)), root)


def is_file(path: Path) -> bool:
    """Whether a file exists; False for names that no file can have, such as one of 300 characters."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
