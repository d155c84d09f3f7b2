"""Embeddings of single frames, beside an index of whole videos: they tell which frame answers a query."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cots.data.object_cache import local_part
from cots.files import atomic_file


@dataclass(frozen=True, slots=True)
class FrameEmbeddings:
    """One embedding per frame, for those items of an index that have several frames.

    Attributes:
        vectors: (F, D) unit rows in half precision, item after item, an item's frames in order of time.
        starts: (N + 1,) first row of each of N items, and F at the end.
    """

    vectors: NDArray[np.float16]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, vectors: NDArray[np.float32], counts: Sequence[int]) -> Self:
        """Frame embeddings from rows (F, D) of all items, and the number of rows of each item: 0 for a single frame."""
        return cls(vectors.astype(np.float16), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: no such file, or a file of something else.
            BadInput: see `local_part`.
        """
        if not (file := local_part(path)).is_file():
            raise ValueError(f"no frame embeddings {path}")
        try:
            return cls(**load_file(file))
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"{path} has no frame embeddings: {error}") from None

    def save(self, path: Path) -> None:
        """Write a file; the same embeddings give the same bytes."""
        with atomic_file(path) as partial:
            save_file({"vectors": self.vectors, "starts": self.starts}, partial)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def count(self, item: int) -> int:
        """Number of an item's frames; 1 for an image."""
        return max(int(self.starts[item + 1] - self.starts[item]), 1)

    def select(self, items: NDArray[np.int64]) -> Self:
        """The frame embeddings of some items, in their order."""
        frames = [np.arange(self.starts[item], self.starts[item + 1]) for item in items]
        counts = [len(rows) for rows in frames]
        return type(self)(
            self.vectors[np.concatenate(frames)], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        )

    def best_frame(self, item: int, query: NDArray[np.float32]) -> int:
        """Number, from 0, of the item's frame that is most similar to a query (D,); of equal ones the earliest."""
        frames = self.vectors[self.starts[item] : self.starts[item + 1]]
        return int((frames.astype(np.float32) @ query).argmax()) if len(frames) else 0
