"""Images as shards store them: upright, downscaled, JPEG."""

import io
from dataclasses import dataclass

from PIL import Image

from cots.data.image_decoding import (
    SIDEWAYS,
    UPRIGHT,
    UnusableImage,
    open_image,
    read_orientation,
    to_upright_rgb,
)
from cots.data.jpeg_segments import strip_metadata

MAX_JPEG_SIDE = 65_500  # pixels: libjpeg's JPEG_MAX_DIMENSION
REDUCING_GAP = 3  # Pillow first reduces coarsely to 3 times the stored size, then resamples with care


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image as a shard stores it.

    Attributes:
        jpeg: encoded, upright, RGB.
        width: of the original, pixels.
        height: of the original, pixels.
    """

    jpeg: bytes
    width: int
    height: int


def store_image(data: bytes, *, size: int, max_pixels: int, min_side: int) -> StoredImage:
    """Reduce an image's shorter side to `size` pixels, never enlarging it; a small upright RGB JPEG is not coded again.

    What is stored has no metadata: no place, no camera, no comment.

    Raises:
        UnusableImage: not an image, damaged, too large, too long or too small.
    """
    with open_image(data, max_pixels=max_pixels, min_side=min_side) as image:
        is_rgb_jpeg = image.format == "JPEG" and image.mode == "RGB"
        orientation = read_orientation(image)
        keep_coding = is_rgb_jpeg and min(image.size) <= size and orientation == UPRIGHT
        width, height = reversed(image.size) if orientation in SIDEWAYS else image.size
        if not keep_coding:
            # a large JPEG is decoded at a fraction of its size
            image.draft("RGB", (REDUCING_GAP * size, REDUCING_GAP * size))
        upright = to_upright_rgb(image)
    jpeg = strip_metadata(data) if keep_coding else encode_jpeg(downscale(upright, size))
    return StoredImage(jpeg, width, height)


def downscale(image: Image.Image, size: int) -> Image.Image:
    """Reduce the shorter side to `size` pixels; a smaller image is returned as it is."""
    shorter = min(image.size)
    if shorter <= size:
        return image
    width, height = (max(size, round(side * size / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode as JPEG, with colour at full resolution: small images have none to lose.

    Raises:
        UnusableImage: a side is longer than a JPEG can be.
    """
    if max(image.size) > MAX_JPEG_SIDE:
        raise UnusableImage(
            "too long", f"{image.width} x {image.height} to be stored, a side has at most {MAX_JPEG_SIDE}"
        )
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling="4:4:4")
    return file.getvalue()
