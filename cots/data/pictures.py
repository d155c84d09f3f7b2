"""Pictures of unknown origin, opened safely: decoded, turned upright, reduced, hashed."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

RejectReason = Literal[
    "no such file",
    "outside the data folder",
    "empty file",
    "not a picture",
    "cut short",
    "damaged",
    "too many pixels",
    "too small",
    "not a clip",
    "no caption",
    "caption not UTF-8",
    "duplicate id",
    "withdrawn",
]
EXIF_ORIENTATION = 0x0112
UPRIGHT, SIDEWAYS = 1, (5, 6, 7, 8)
FINER = 3  # times the stored size: from there on a picture is reduced with care


class UnusableImage(Exception):
    """A picture or clip that cannot be used, and why.

    Attributes:
        reason: one of a few, for counting.
        detail: for the person who looks into it.
    """

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A picture as a shard holds it.

    Attributes:
        jpeg: encoded, upright, RGB.
        width: pixels, of the original.
        height: of the original.
    """

    jpeg: bytes
    width: int
    height: int


def decode_image(data: bytes, *, max_pixels: int, min_side: int) -> Image.Image:
    """A picture as RGB, upright, transparency on white.

    Args:
        data: a file's content, of any format that Pillow reads.
        max_pixels: larger pictures are refused before they are decoded.
        min_side: least width and height, pixels.

    Raises:
        UnusablePicture: not a picture, damaged, too large or too small.
    """
    with _opened(data, max_pixels=max_pixels, min_side=min_side) as picture:
        return _upright_rgb(picture)


def store_image(data: bytes, *, size: int, max_pixels: int, min_side: int) -> StoredImage:
    """The picture with its shorter side reduced to `size` pixels, never enlarged; a plain small JPEG keeps its bytes.

    Raises:
        UnusablePicture: not a picture, damaged, too large or too small.
    """
    with _opened(data, max_pixels=max_pixels, min_side=min_side) as picture:
        plain = picture.format == "JPEG" and picture.mode == "RGB"
        orientation = picture.getexif().get(EXIF_ORIENTATION, UPRIGHT)
        keep = plain and min(picture.size) <= size and orientation == UPRIGHT
        width, height = reversed(picture.size) if orientation in SIDEWAYS else picture.size
        if not keep:
            picture.draft("RGB", (FINER * size, FINER * size))  # a JPEG is decoded no larger than is of use
        upright = _upright_rgb(picture)
    jpeg = data if keep else encode_jpeg(downscale(upright, size))
    return StoredImage(jpeg, width, height)


def downscale(picture: Image.Image, size: int) -> Image.Image:
    """The picture with its shorter side at `size` pixels; as it is, where it is no larger."""
    shorter = min(picture.size)
    if shorter <= size:
        return picture
    width, height = (max(size, round(side * size / shorter)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=FINER)


def encode_jpeg(picture: Image.Image) -> bytes:
    """JPEG bytes, with colour at full resolution: small pictures have none to lose."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95, subsampling="4:4:4")
    return file.getvalue()


def image_hashes(picture: Image.Image) -> tuple[str, str]:
    """What tells a picture from others: a hash that is equal for equal pixels, and one that is near for alike ones.

    Returns:
        32 hex digits; and a difference hash of 64 bits as 16 hex digits, whose Hamming distance is small
        for pictures that look alike.
    """
    pixels = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()[:32]
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    rising = np.packbits(grey[:, 1:] > grey[:, :-1])
    return pixels, rising.tobytes().hex()


@contextmanager
def _opened(data: bytes, *, max_pixels: int, min_side: int) -> Iterator[Image.Image]:
    """The picture, its size checked, not yet decoded; whatever a decoder trips over becomes `UnusablePicture`."""
    if not data:
        raise UnusableImage("empty file", "0 bytes")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            check_size(picture.width, picture.height, max_pixels=max_pixels, min_side=min_side)
            yield picture
    except UnusableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImage("too many pixels", str(error)) from error
    except UnidentifiedImageError:
        raise UnusableImage("not a picture", f"{len(data)} bytes of an unknown format") from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason: RejectReason = "cut short" if "truncated" in str(error).lower() else "damaged"
        raise UnusableImage(reason, f"{type(error).__name__}: {error}") from error


def check_size(width: int, height: int, *, max_pixels: int, min_side: int) -> None:
    """Refuse sizes outside the limits.

    Raises:
        UnusablePicture: too many pixels, or a side too short.
    """
    if width * height > max_pixels:
        raise UnusableImage("too many pixels", f"{width} x {height}, at most {max_pixels} are opened")
    if min(width, height) < min_side:
        raise UnusableImage("too small", f"{width} x {height}, the shorter side must be {min_side} at least")


def _upright_rgb(picture: Image.Image) -> Image.Image:
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I;16"):
        upright = upright.point(lambda value: value / 256).convert("L")
    if upright.mode == "RGB":
        return upright
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    layer = upright.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")
