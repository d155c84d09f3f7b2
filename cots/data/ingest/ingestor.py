"""Turns a source sample into a usable sample, or a rejection with a reason."""

import io
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

from cots.data.frame_sampling import segment_centers
from cots.data.image_decoding import UnusableImage
from cots.data.image_hashes import image_hashes
from cots.data.images import StoredImage, downscale, encode_jpeg, store_image
from cots.data.ingest.metadata import metadata_json
from cots.data.ingest.source_file import check_bytes, locate_source_file, read_source_file
from cots.data.ingest.video import decode_video
from cots.data.samples import GALLERY, RejectReason, Sample, StoredSample, StoredSplit, is_utf8
from cots.data.verdicts import PairKey, pair_key
from cots.decode_threads import decode_in_threads
from cots.directions import Media


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestedSample:
    """A usable sample: what its shard and its row of the manifest need. Fields as in `StoredSample` and `SCHEMA`."""

    id: str
    split: StoredSplit
    media: Media
    captions: tuple[str, ...]
    is_mismatched: tuple[bool, ...]
    frames: tuple[bytes, ...]
    width: int
    height: int
    pixel_hash: str
    dhash: str
    origin: str
    metadata: str | None
    languages: tuple[str, ...] = ()
    is_made: tuple[bool, ...] = ()

    def to_stored(self, key: str) -> StoredSample:
        """What a shard holds of it, under a key."""
        return StoredSample(key=key, id=self.id, captions=self.captions, frames=self.frames, languages=self.languages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An unusable sample, as a row of `REJECTED_SCHEMA`."""

    id: str
    split: StoredSplit
    origin: str
    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingestor:
    """What may be used, and how it is stored.

    Attributes:
        root: files outside this folder are not read.
        follow_symlinks: but for those that links in the folder lead to.
        withdrawn: reasons by id of the samples that may not be used.
        rejected_pairs: captions that people found not to describe their sample; they are left out.
        size: shorter side of stored images, pixels.
        max_frames: frames kept of a video.
        min_side: of the original, pixels.
        max_pixels: of the original, or of every frame of a video.
        max_bytes: of the encoded file.
        max_seconds: of processor time, to decode a video.
        max_caption_chars: longer captions are left out.
    """

    root: Path
    follow_symlinks: bool = False
    withdrawn: Mapping[str, str]
    rejected_pairs: Set[PairKey] = frozenset()
    size: int
    max_frames: int
    min_side: int
    max_pixels: int
    max_bytes: int
    max_seconds: float
    max_caption_chars: int

    def __call__(self, sample: Sample) -> IngestedSample | Rejected:
        """Open the sample and check it."""
        if sample.id in self.withdrawn:
            return reject(sample, "withdrawn", self.withdrawn[sample.id])
        try:
            if sample.listing:
                locate_source_file(sample.listing, self.root, follow_symlinks=self.follow_symlinks)
            if sample.fault:
                return reject(sample, *sample.fault)
            if not is_utf8(sample.id):
                return reject(sample, "name not UTF-8", ascii(sample.id))
            captions, is_mismatched, languages, is_made = self._check_captions(sample)
            images = self._load_images(sample)
            pixel_hash, dhash = _hash_stored(images[0])
        except UnusableImage as error:
            return reject(sample, error.reason, error.detail)
        return IngestedSample(
            id=sample.id,
            split=sample.split if captions else GALLERY,
            media=sample.media,
            captions=captions,
            is_mismatched=is_mismatched,
            frames=tuple(image.jpeg for image in images),
            width=images[0].width,
            height=images[0].height,
            pixel_hash=pixel_hash,
            dhash=dhash,
            origin=_escape(sample.origin),
            metadata=metadata_json(sample.metadata),
            languages=languages,
            is_made=is_made,
        )

    def _check_captions(
        self, sample: Sample
    ) -> tuple[tuple[str, ...], tuple[bool, ...], tuple[str, ...], tuple[bool, ...]]:
        """The usable captions, stripped, and of each what `Sample` says beside it; there may be none."""
        number = len(sample.captions)
        languages, is_made = sample.languages or [""] * number, sample.is_made or [False] * number
        texts = map(str.strip, sample.captions)
        stripped = list(zip(texts, sample.is_mismatched, languages, is_made, strict=True))
        for text, *_ in stripped:
            if not is_utf8(text):
                raise UnusableImage("caption not UTF-8", ascii(text[: self.max_caption_chars]))
        usable = [
            (text, *rest)
            for text, *rest in stripped
            if 0 < len(text) <= self.max_caption_chars and pair_key(sample.id, text) not in self.rejected_pairs
        ]
        captions, flags, tags, made = zip(*usable, strict=True) if usable else ((), (), (), ())
        return captions, flags, tags if any(tags) else (), made if any(made) else ()

    def _load_images(self, sample: Sample) -> list[StoredImage]:
        """The frames to store."""
        content = self._read(sample.content) if isinstance(sample.content, PurePath) else sample.content
        check_bytes(len(content) if isinstance(content, bytes) else max(map(len, content)), self.max_bytes)
        if isinstance(content, tuple):
            return [self._store(content[index]) for index in segment_centers(len(content), self.max_frames)]
        if sample.media == "image":
            return [self._store(content)]
        return decode_video(
            content,
            lambda frame: StoredImage(encode_jpeg(downscale(frame, self.size)), *frame.size),
            max_frames=self.max_frames,
            max_pixels=self.max_pixels,
            min_side=self.min_side,
            max_seconds=self.max_seconds,
        )

    def _read(self, path: Path) -> bytes:
        return read_source_file(path, root=self.root, follow_symlinks=self.follow_symlinks, max_bytes=self.max_bytes)

    def _store(self, data: bytes) -> StoredImage:
        return store_image(data, size=self.size, max_pixels=self.max_pixels, min_side=self.min_side)


def _hash_stored(image: StoredImage) -> tuple[str, str]:
    try:
        return image_hashes(Image.open(io.BytesIO(image.jpeg), formats=("JPEG",)))
    except OSError as error:  # of a damaged JPEG that a decoder takes no more without its metadata
        raise UnusableImage("damaged", f"without its metadata: {error}") from None


def reject(sample: Sample, reason: RejectReason, detail: str) -> Rejected:
    """Reject a sample; its texts are escaped, so that they can be stored in a table."""
    return Rejected(
        id=_escape(sample.id), split=sample.split, origin=_escape(sample.origin), reason=reason, detail=_escape(detail)
    )


def ingest(samples: Iterable[Sample], ingestor: Ingestor) -> Iterator[IngestedSample | Rejected]:
    """Open samples in threads and yield the outcomes in order; later usable samples with the same id are rejected."""
    seen = set[str]()
    for outcome, split in decode_in_threads(
        samples, lambda sample: (ingestor(sample), sample.split), max_pixels=ingestor.max_pixels
    ):
        yield reject_duplicate(outcome.id, split, outcome.origin) if _is_repeated(outcome, seen) else outcome


def reject_duplicate(name: str, split: StoredSplit, origin: str) -> Rejected:
    """Reject a usable sample, because an earlier usable one has its id."""
    return Rejected(id=name, split=split, origin=origin, reason="duplicate id", detail="an earlier sample has it")


def _is_repeated(outcome: IngestedSample | Rejected, seen: set[str]) -> bool:
    if isinstance(outcome, Rejected):
        return False
    is_repeated = outcome.id in seen
    seen.add(outcome.id)
    return is_repeated


def _escape(text: str) -> str:
    """Write bytes that are not UTF-8 as escape sequences."""
    return text.encode(errors="backslashreplace").decode()
