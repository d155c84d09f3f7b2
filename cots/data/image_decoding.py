"""The one decoder of untrusted images: bytes become upright RGB images, within limits of kind, size and work."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import AvifImagePlugin, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TILELENGTH, TILEWIDTH

from cots.data.jpeg_segments import count_scans
from cots.data.samples import RejectReason

FORMATS = {  # media types by Pillow's names; it knows more, such as EPS, which it passes to Ghostscript
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "JPEG2000": "image/jp2",
    "ICO": "image/x-icon",
    "TGA": "image/x-tga",
}
MAX_SCANS = 32  # of a JPEG: three times what progressive encoders write; empty scans cost time and hardly any bytes
PNG, ICO = b"\x89PNG\r\n\x1a\n", b"\0\0\1\0"
PNG_KEPT = (b"tRNS", b"eXIf")  # of the ancillary chunks: transparency and orientation
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # callers decode several images at a time; AVIF's would be one per core of each
EXIF_ORIENTATION = 0x0112
UPRIGHT, SIDEWAYS = 1, (5, 6, 7, 8)
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
    """Decode to RGB, upright, with transparent parts white and without metadata.

    Args:
        data: a file's content, in one of `FORMATS`.
        max_pixels: larger images are refused before they are decoded.
        min_side: minimum width and height, pixels.

    Raises:
        UnusableImage: not an image, damaged, too large or too small.
    """
    with open_image(data, max_pixels=max_pixels, min_side=min_side) as image:
        return to_upright_rgb(image)


@contextmanager
def open_image(data: bytes, *, max_pixels: int, min_side: int) -> Iterator[Image.Image]:
    """Open an image and check its kind and size, without decoding it yet.

    Raises:
        UnusableImage: not an image, too large or too small; or an error of Pillow inside the `with` block.
    """
    if not data:
        raise UnusableImage("empty file", "0 bytes")
    if data.startswith(PNG):
        data = _strip_png(data)
    try:
        if data.startswith(ICO):
            _check_icon(data, max_pixels=max_pixels)
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
            check_size(image.width, image.height, max_pixels=max_pixels, min_side=min_side)
            _check_work(image, data, max_pixels=max_pixels)
            yield image
    except UnusableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImage("too many pixels", str(error)) from error
    except UnidentifiedImageError:
        raise UnusableImage("not a picture", f"{len(data)} bytes that are none of {', '.join(FORMATS)}") from None
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


def check_scans(jpeg: bytes) -> None:
    """Check a JPEG before it is decoded.

    Raises:
        UnusableImage: it has more than `MAX_SCANS` scans.
    """
    if (scans := count_scans(jpeg)) > MAX_SCANS:
        raise UnusableImage("too many scans", f"{scans}, at most {MAX_SCANS} are decoded")


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; `UPRIGHT` if there is none, or if the metadata are damaged."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # its pixels are whole
        return UPRIGHT
    return orientation if orientation in TRANSPOSES else UPRIGHT


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Decode an opened image to RGB, rotated as its EXIF orientation says, with transparent parts white.

    The result has no metadata, so that nothing writes them to another file. Large images are not copied needlessly.
    """
    image.load()
    orientation = read_orientation(image)
    rgb = _to_rgb(image)
    upright = rgb if orientation == UPRIGHT else rgb.transpose(TRANSPOSES[orientation])
    upright.info = {}
    return upright


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _to_8_bits(image).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer)
    return white


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale grey levels of another depth, which Pillow's `convert` would clip at 255.

    White is the largest value of the file's depth; or, of 32-bit integers and floats, which use no fixed range, the
    largest finite value that occurs. Black is 0, or the smallest value if it is negative.
    """
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    levels = np.asarray(image)
    if image.mode == "I" and tags.get(SAMPLEFORMAT) in (None, (1,)):
        levels = levels.view(np.uint32)  # Pillow reads unsigned integers as signed ones
    levels = levels.astype(np.float32)
    black, white = 0.0, 0.0
    if image.mode.startswith("I;"):
        [bits] = tags.get(BITSPERSAMPLE, (16,))
        white = 2.0**bits - 1
    elif (finite := levels[np.isfinite(levels)]).size:
        black, white = min(float(finite.min()), 0.0), float(finite.max())
    with np.errstate(over="ignore"):
        scaled = (levels - black) * (255 / (white - black)) if white > black else np.zeros_like(levels)
    shades = np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(255 - shades if tags.get(PHOTOMETRIC_INTERPRETATION) == 0 else shades)


def _check_work(image: Image.Image, data: bytes, *, max_pixels: int) -> None:
    """Refuse images that cost more to decode than their pixels."""
    if image.format in ("JPEG", "MPO"):
        check_scans(data)
    if image.format == "TIFF":  # a tile is decoded as a whole, however small the image is
        tags = image.tag_v2  # type: ignore[attr-defined]
        check_size(tags.get(TILEWIDTH, 1), tags.get(TILELENGTH, 1), max_pixels=max_pixels, min_side=1)


def _check_icon(data: bytes, *, max_pixels: int) -> None:
    """Check the images of an icon, which Pillow decodes on opening it, by their own headers."""
    for entry in range(int.from_bytes(data[4:6], "little")):
        [start] = struct.unpack_from("<I", data, 6 + 16 * entry + 12)
        if data.startswith(PNG, start):
            width, height = struct.unpack_from(">II", data, start + 16)
        else:
            width, height = struct.unpack_from("<ii", data, start + 4)
            height //= 2  # it counts the mask, too
        check_size(abs(width), abs(height), max_pixels=max_pixels, min_side=0)


def _strip_png(data: bytes) -> bytes:
    """A PNG without its texts and profiles: Pillow refuses the whole file if they are large."""
    kept, position = [PNG], len(PNG)
    while position < len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 12 + length  # length, kind, content, checksum
        if kind[:1].isupper() or kind in PNG_KEPT:
            kept.append(data[position:end])
        position = end
    return b"".join(kept)
