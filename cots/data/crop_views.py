"""Crop views: crops of the training images, drawn once from a seed and stored with their visual tokens."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from cots.data.store import map_part
from cots.errors import BadInput
from cots.files import atomic_file

_DTYPES = {"U16": np.uint16, "F32": np.float32}  # as the format safetensors names them


class CropViews(NamedTuple):
    """The views of the samples of one shard, in its order: S samples, V views, N patches."""

    frames: NDArray[np.uint16]  # (S, V) index of the cropped frame; 0 for images
    boxes: NDArray[np.float32]  # (S, V, 4) left, top, right, bottom as fractions of the frame
    tokens: NDArray[np.uint16]  # (S, V, N) dVAE codes of the crop, patches in row-major order

    def save(self, path: Path) -> None:
        """Write the views; the same views give the same bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial:
            save_file(self._asdict(), partial)

    @classmethod
    def load(cls, path: Path) -> "CropViews":
        """The views of one shard, each read from disk when it is looked at.

        Raises:
            BadInput: no such file.
        """
        try:
            data = map_part(path)
        except FileNotFoundError:
            raise BadInput(f"no crop views {path}: run `dvc repro tokenize`") from None
        start = 8 + int.from_bytes(data[:8], "little")  # of the arrays, behind the header of the format safetensors
        arrays = {
            name: np.frombuffer(
                data, _DTYPES[entry["dtype"]], math.prod(entry["shape"]), start + entry["data_offsets"][0]
            ).reshape(entry["shape"])
            for name, entry in json.loads(data[8:start]).items()
        }
        return cls(**arrays)
