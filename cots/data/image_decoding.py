"""Untrusted bytes to upright RGB images, within limits."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

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
