"""A random frame of a sample, and a random crop of it."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cots.data.samples import StoredSample
from cots.data.stored_frames import open_frame

Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the image


def draw_view(
    rng: np.random.Generator, sample: StoredSample, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, Image.Image, Box]:
    """Draw a frame and a box in it: the frame's index, the frame, the box."""
    index = int(rng.integers(len(sample.frames)))
    frame = open_frame(sample, index)
    return index, frame, random_resized_crop_box(rng, aspect=frame.width / frame.height, scale=scale, ratio=ratio)


def random_resized_crop_box(
    rng: np.random.Generator, *, aspect: float, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """A random resized crop: area uniform in `scale`, aspect ratio log-uniform in `ratio`, position uniform.

    Args:
        rng: the random generator.
        aspect: width over height of the image.
        scale: range of the crop's area, as fractions of the image's area in (0, 1].
        ratio: range of the crop's width over its height, in pixels.

    Returns:
        left, top, right, bottom as fractions of the image. A crop that would stick out is cut to the image.

    Source: Inception crops, arXiv:1409.4842, as every vision-language recipe uses them.
    """
    area = rng.uniform(*scale)
    shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]))) / aspect
    width, height = min(math.sqrt(area * shape), 1.0), min(math.sqrt(area / shape), 1.0)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return left, top, left + width, top + height


def crop(image: Image.Image, box: Box, size: int) -> NDArray[np.uint8]:
    """Cut a box out of an image and resize it to (size, size, 3)."""
    width, height = image.size
    corners = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    resized = image.resize((size, size), Image.Resampling.BICUBIC, box=corners, reducing_gap=2.0)
    return np.asarray(resized)
