"""The door: a sample of any source becomes a stored sample with its manifest row, or a reject with its reason."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cots.data.frame_sampling import segment_centers
from cots.data.image_decoding import RejectReason, UnusableImage
from cots.data.image_hashes import image_hashes
from cots.data.images import StoredImage, downscale, encode_jpeg, store_image
from cots.data.ingest.video import decode_video
from cots.data.samples import Sample, Split, is_utf8
from cots.directions import Media


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestedSample:
    """A usable sample: what the shard needs and what the manifest tells. Fields as in `StoredSample` and `SCHEMA`."""

    id: str
    split: Split
    media: Media
    captions: tuple[str, ...]
    is_mismatched: tuple[bool, ...]
    frames: tuple[bytes, ...]
    width: int
    height: int
    pixel_hash: str
    dhash: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An unusable sample, as a row of `REJECTED_SCHEMA`."""

    id: str
    split: Split
    origin: str
    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingestor:
    """What is taken in, and in which form.

    Attributes:
        root: files outside this folder are not read; resolved.
        withdrawn: reasons by id of the samples that may not be used.
        size: shorter side of stored pictures, pixels.
        frames: of a clip, at most.
        min_side: of the original, pixels.
        max_pixels: of the original.
        max_caption_chars: longer captions are left out.
    """

    root: Path
    withdrawn: Mapping[str, str]
    size: int
    frames: int
    min_side: int
    max_pixels: int
    max_caption_chars: int

    def __call__(self, sample: Sample) -> IngestedSample | Rejected:
        """Open the sample, or say why it cannot be used."""
        if sample.id in self.withdrawn:
            return rejected(sample, "withdrawn", self.withdrawn[sample.id])
        try:
            captions, wrong = self._captions(sample)
            pictures = self._pictures(sample)
        except UnusableImage as error:
            return rejected(sample, error.reason, error.detail)
        pixel_hash, dhash = image_hashes(Image.open(io.BytesIO(pictures[0].jpeg)))
        return IngestedSample(
            id=sample.id,
            split=sample.split,
            media=sample.media,
            captions=captions,
            is_mismatched=wrong,
            frames=tuple(picture.jpeg for picture in pictures),
            width=pictures[0].width,
            height=pictures[0].height,
            pixel_hash=pixel_hash,
            dhash=dhash,
            origin=sample.origin,
        )

    def _captions(self, sample: Sample) -> tuple[tuple[str, ...], tuple[bool, ...]]:
        stripped = [(text.strip(), wrong) for text, wrong in zip(sample.captions, sample.is_mismatched, strict=True)]
        for text, _ in stripped:
            if not is_utf8(text):
                raise UnusableImage("caption not UTF-8", ascii(text[: self.max_caption_chars]))
        usable = [(text, wrong) for text, wrong in stripped if 0 < len(text) <= self.max_caption_chars]
        if not usable:
            raise UnusableImage("no caption", f"of {len(stripped)}, none has 1 to {self.max_caption_chars} characters")
        return tuple(text for text, _ in usable), tuple(wrong for _, wrong in usable)

    def _pictures(self, sample: Sample) -> list[StoredImage]:
        content = self._read(sample.content) if isinstance(sample.content, Path) else sample.content
        if isinstance(content, tuple):
            return [self._stored(content[i]) for i in segment_centers(len(content), self.frames)]
        if sample.media == "image":
            return [self._stored(content)]
        clip = decode_video(content, frames=self.frames, max_pixels=self.max_pixels, min_side=self.min_side)
        return [StoredImage(encode_jpeg(downscale(frame, self.size)), *frame.size) for frame in clip]

    def _stored(self, data: bytes) -> StoredImage:
        return store_image(data, size=self.size, max_pixels=self.max_pixels, min_side=self.min_side)

    def _read(self, path: Path) -> bytes:
        try:
            target = path.resolve()
            if not target.is_relative_to(self.root):
                raise UnusableImage("outside the data folder", f"{path} leads to {target}")
            if not target.is_file():
                raise UnusableImage("no such file", str(path))
            return target.read_bytes()
        except (OSError, ValueError) as error:
            raise UnusableImage("no such file", f"{path}: {error}") from error


def rejected(sample: Sample, reason: RejectReason, detail: str) -> Rejected:
    """The sample as a reject; its texts made fit for a table whatever bytes they hold."""
    id_, origin, told = (text.encode(errors="backslashreplace").decode() for text in (sample.id, sample.origin, detail))
    return Rejected(id=id_, split=sample.split, origin=origin, reason=reason, detail=told)
