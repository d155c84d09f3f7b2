"""What a source hands over and what a shard holds: the two forms of one picture or clip with its captions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cots.directions import Media

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One picture or clip as its source names it, not yet opened.

    Attributes:
        id: unique within the source; stays with the picture through every stage.
        split: which part of the data it belongs to.
        media: a picture, or a clip of several frames.
        captions: texts that describe it; may be empty or blank here, `prepare` rejects such samples.
        wrong: per caption, whether it is known not to describe the picture (synthetic data only).
            Goes to the manifest for evaluation, never into a shard.
        content: a file to read; or encoded bytes; or, for a clip, one encoded picture per frame.
        origin: where it came from, for people.
    """

    id: str
    split: Split
    media: Media
    captions: tuple[str, ...]
    is_mismatched: tuple[bool, ...]
    content: Path | bytes | tuple[bytes, ...]
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSample:
    """One picture or clip as a shard holds it. A picture is a clip of one frame.

    Attributes:
        key: its name in the shard: nine digits, unique in the data set; the manifest is sorted by it.
        id: the source's id.
        captions: at least one, stripped, not blank.
        frames: encoded pictures, at least one.
    """

    key: str
    id: str
    captions: tuple[str, ...]
    frames: tuple[bytes, ...]


def is_utf8(text: str) -> bool:
    """Whether it can be written: sources leave lone surrogates for bytes that are not UTF-8, and JSON may name some."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
