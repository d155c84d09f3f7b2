"""An image or video with its captions, in two forms: as its source names it, and as a shard stores it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cots.directions import Media

Split = Literal["train", "val", "test"]
StoredSplit = Literal["train", "val", "test", "gallery"]

MAX_FILE_BYTES = 1 << 30  # of an image or video, which is decoded from memory
SPLITS: tuple[Split, ...] = ("train", "val", "test")
GALLERY: Literal["gallery"] = "gallery"  # split of samples without captions: searched, never trained or measured on
STORED_SPLITS: tuple[StoredSplit, ...] = (*SPLITS, GALLERY)
RejectReason = Literal[  # stored in rejected.parquet
    "no such file",
    "outside the data folder",
    "empty file",
    "too many bytes",
    "not a picture",
    "cut short",
    "damaged",
    "too many pixels",
    "too many scans",
    "too small",
    "too long",
    "too slow",
    "not a clip",
    "not in the layout",
    "no caption",
    "caption not text",
    "caption not UTF-8",
    "name not UTF-8",
    "duplicate id",
    "withdrawn",
]


class Fault(NamedTuple):
    """Why a sample cannot be used.

    Attributes:
        reason: for counting.
        detail: for the person who looks into it.
    """

    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image or video as its source names it, not yet opened.

    Attributes:
        id: unique within the source, and the same in every stage.
        split: train, val or test.
        media: image, or video of several frames.
        captions: texts that describe it; without a usable one the sample is stored in split `GALLERY`.
        is_mismatched: per caption, whether it is known to describe another image (drawn scenes only).
            Stored in the manifest for evaluation, never in a shard.
        languages: per caption its BCP 47 tag, empty if unknown; `()` if that of no caption is known.
        is_made: per caption, whether it was made from a label; `()` if none was. Only samples of train have such ones.
            Stored in the manifest, never in a shard.
        content: a file to read; or encoded bytes; or, for a video, one encoded image per frame.
        listing: the file of the source that names it or holds its captions, such as a table; None without one.
        origin: where it came from, for people.
        fault: why it cannot be used, if its source shows that already; the sample is then rejected unopened.
        metadata: what else the source says about it, by name; values are JSON's, or are stored as `str` gives them.
    """

    id: str
    split: Split
    media: Media
    captions: tuple[str, ...]
    is_mismatched: tuple[bool, ...]
    languages: tuple[str, ...] = ()
    is_made: tuple[bool, ...] = ()
    content: Path | bytes | tuple[bytes, ...]
    origin: str
    listing: Path | None = None
    fault: Fault | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSample:
    """One image or video as a shard stores it. An image is a video of one frame.

    Attributes:
        key: its name in the shard, by `sample_key`. The manifest is sorted by it as a number.
        id: the source's id.
        captions: stripped, not blank; none in split `GALLERY`, at least one elsewhere.
        frames: encoded images, at least one.
        languages: as in `Sample`.
    """

    key: str
    id: str
    captions: tuple[str, ...]
    frames: tuple[bytes, ...]
    languages: tuple[str, ...] = ()


def sample_key(series: int, number: int) -> str:
    """The key of a sample: the digit of its series, then eight digits; what they cannot hold comes before that digit.

    Args:
        series: 0 to 9, one for each split and kind of media.
        number: of the sample in its series, from 0.

    Returns:
        Digits. As a whole number they are unique in the data set, and ascend with the number in each series.
    """
    higher, lower = divmod(number, 10**8)
    return f"{higher or ''}{series}{lower:08d}"


def is_utf8(text: str) -> bool:
    """Whether the text can be written as UTF-8, which has no lone surrogates.

    Readers put a lone surrogate in place of a byte that is not UTF-8, and JSON can spell one out.
    """
    return not any("\ud800" <= character <= "\udfff" for character in text)
