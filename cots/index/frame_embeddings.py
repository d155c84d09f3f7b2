"""Which frame of a clip answers a query: the frames' own vectors, beside the index of whole clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cots.files import atomic_file


@dataclass(frozen=True, slots=True)
class FrameEmbeddings:
    """One vector a frame for each item of an index that has several frames; the others need none.

    Attributes:
        vectors: (F, D) unit rows in half precision, an item's frames in order of time.
        starts: (N + 1,) where the rows of each of N items start; the last one is F.
    """

    vectors: NDArray[np.float16]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, vectors: NDArray[np.float32], counts: Sequence[int]) -> Self:
        """Rows (F, D) of all items after each other, and how many each item has: 0 where there is but one frame."""
        return cls(vectors.astype(np.float16), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: no such file, or another one.
        """
        if not path.is_file():
            raise ValueError(f"no frames {path}")
        try:
            return cls(**load_file(path))
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"{path} holds no frames: {error}") from None

    def save(self, path: Path) -> None:
        """Write a file; the same vectors give the same bytes."""
        with atomic_file(path) as aside:
            save_file({"vectors": self.vectors, "starts": self.starts}, aside)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def best_frame(self, item: int, query: NDArray[np.float32]) -> int:
        """Number, from 0, of the item's frame that is most similar to a query (D,); the earliest of equal ones."""
        own = self.vectors[self.starts[item] : self.starts[item + 1]]
        return int((own.astype(np.float32) @ query).argmax()) if len(own) else 0
