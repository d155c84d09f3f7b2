"""Decode untrusted bytes to upright RGB images, within limits of size."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from PIL import Image, ImageOps, UnidentifiedImageError

RejectReason = Literal[  # stored in rejected.parquet
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
    """An image or video that cannot be used.

    Attributes:
        reason: for counting.
        detail: for the person who looks into it.
    """

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode_image(data: bytes, *, max_pixels: int, min_side: int) -> Image.Image:
    """Decode to RGB, upright, with transparent parts white.

    Args:
        data: a file's content, in any format that Pillow reads.
        max_pixels: larger images are refused before they are decoded.
        min_side: minimum width and height, pixels.

    Raises:
        UnusableImage: not an image, damaged, too large or too small.
    """
    with open_image(data, max_pixels=max_pixels, min_side=min_side) as image:
        return to_upright_rgb(image)


@contextmanager
def open_image(data: bytes, *, max_pixels: int, min_side: int) -> Iterator[Image.Image]:
    """Open an image and check its size, without decoding it yet.

    Raises:
        UnusableImage: not an image, too large or too small; or an error of Pillow inside the `with` block.
    """
    if not data:
        raise UnusableImage("empty file", "0 bytes")
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_size(image.width, image.height, max_pixels=max_pixels, min_side=min_side)
            yield image
    except UnusableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImage("too many pixels", str(error)) from error
    except UnidentifiedImageError:
        raise UnusableImage("not a picture", f"{len(data)} bytes of an unknown format") from None
    except Exception as error:  # decoders raise nearly anything for damaged files
        reason: RejectReason = "cut short" if "truncated" in str(error).lower() else "damaged"
        raise UnusableImage(reason, f"{type(error).__name__}: {error}") from error


def check_size(width: int, height: int, *, max_pixels: int, min_side: int) -> None:
    """Check the size of an image or frame.

    Raises:
        UnusableImage: it has too many pixels, or a side is too short.
    """
    if width * height > max_pixels:
        raise UnusableImage("too many pixels", f"{width} x {height}, at most {max_pixels} are opened")
    if min(width, height) < min_side:
        raise UnusableImage("too small", f"{width} x {height}, the shorter side must be at least {min_side}")


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Decode an opened image to RGB, rotated as its EXIF orientation says, with transparent parts white."""
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = upright.point(lambda value: value / 256).convert("L")
    if upright.mode == "RGB":
        return upright
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    layer = upright.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")
