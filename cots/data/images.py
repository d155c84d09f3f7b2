"""Pictures of unknown origin, opened safely: decoded, turned upright, reduced, hashed."""

import io
from dataclasses import dataclass

from PIL import Image

from cots.data.image_decoding import EXIF_ORIENTATION, SIDEWAYS, UPRIGHT, _opened, _upright_rgb

FINER = 3  # times the stored size: from there on a picture is reduced with care


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
