"""Frozen features: what the frozen image blocks compute for crop views, kept on disk in half precision."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class FrozenFeatures:
    """The tokens after the frozen blocks, for some crop views of each training sample; read as they are needed.

    Args:
        files: of each shard, a .npy file (V, S, L, W): V views of S samples, L tokens of width W each.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._arrays = [np.load(file, mmap_mode="r") for file in files]

    def select(self, shard: int, view: int, row: int) -> NDArray[np.float16]:
        """The tokens (L, W) of one view of a sample."""
        tokens: NDArray[np.float16] = self._arrays[shard][view, row]
        return tokens
