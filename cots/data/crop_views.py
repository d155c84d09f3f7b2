"""Views: seeded crops of the training pictures, drawn once, so that a crop and its visual tokens never part."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from cots.errors import BadInput
from cots.files import atomic_file


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
