"""Images resized for evaluation."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cots.data.random_crop import crop


def resize_squash(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """The whole picture for evaluation, resized to (size, size, 3): nothing that a caption names is cut away."""
    return crop(picture, (0.0, 0.0, 1.0, 1.0), size)
