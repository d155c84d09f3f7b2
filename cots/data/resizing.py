"""Images resized for evaluation."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cots.data.random_crop import crop


def resize_squash(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize the whole image to (size, size, 3), so that nothing that a caption names is cut away."""
    return crop(image, (0.0, 0.0, 1.0, 1.0), size)
