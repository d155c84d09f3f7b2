"""Frozen features: the output of the frozen image blocks for crop views, stored in half precision."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class FrozenFeatures:
    """The tokens after the frozen blocks, for some crop views of each training sample; read from disk when needed.

    Args:
        files: for each shard a .npy file (V, S, L, W): V views of S samples, each with L tokens of width W.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._arrays = [np.load(file, mmap_mode="r") for file in files]

    def select(self, shard: int, view: int, row: int) -> NDArray[np.float16]:
        """The tokens (L, W) of one view of a sample."""
        tokens: NDArray[np.float16] = self._arrays[shard][view, row]
        return tokens
