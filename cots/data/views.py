"""Views: seeded crops of the training pictures, drawn once, so that a crop and its visual tokens never part."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from cots.errors import BadInput
from cots.files import atomic_file

Box = tuple[float, float, float, float]


class CropViews(NamedTuple):
    """The views of one shard's samples, in the shard's order: S samples, V views, N patches."""

    frames: NDArray[np.uint16]  # (S, V) which frame of the clip; 0 for pictures
    boxes: NDArray[np.float32]  # (S, V, 4) left, top, right, bottom as shares of the picture
    tokens: NDArray[np.uint16]  # (S, V, N) dVAE codes of the crop, patches in row order

    def save(self, path: Path) -> None:
        """Write a file; the same views give the same bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as aside:
            save_file(self._asdict(), aside)

    @classmethod
    def load(cls, path: Path) -> "CropViews":
        """Read the views of one shard.

        Raises:
            BadInput: there is no such file.
        """
        if not path.is_file():
            raise BadInput(f"no views {path}: run `dvc repro tokenize`")
        return cls(**load_file(path))


def random_resized_crop_box(
    rng: np.random.Generator, *, aspect: float, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """A random resized crop: area uniform in `scale`, aspect ratio log-uniform in `ratio`, position uniform.

    Args:
        rng: where the randomness comes from.
        aspect: width over height of the picture.
        scale: share of the picture's area, in (0, 1].
        ratio: width over height of the crop in pixels.

    Returns:
        left, top, right, bottom as shares of the picture. Crops that would stick out are cut to the picture.

    Source: Inception crops, arXiv:1409.4842, as every vision-language recipe uses them.
    """
    area = rng.uniform(*scale)
    shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]))) / aspect
    width, height = min(math.sqrt(area * shape), 1.0), min(math.sqrt(area / shape), 1.0)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return left, top, left + width, top + height


def crop(picture: Image.Image, box: Box, size: int) -> NDArray[np.uint8]:
    """Cut a box out of a picture and resize it to (size, size, 3)."""
    width, height = picture.size
    corners = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    resized = picture.resize((size, size), Image.Resampling.BICUBIC, box=corners, reducing_gap=2.0)
    return np.asarray(resized)


def resize_squash(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """The whole picture for evaluation, resized to (size, size, 3): nothing that a caption names is cut away."""
    return crop(picture, (0.0, 0.0, 1.0, 1.0), size)
