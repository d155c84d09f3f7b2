"""Embeddings in a file, for those that do not fit in memory, read like an array."""

import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 16  # rows that are in memory at once: 64 MiB of 256 dimensions


class Embeddings(Protocol):
    """Embeddings (N, D): an array, or a file of which only the rows that are asked for come into memory."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """N and D."""

    @property
    def nbytes(self) -> int:
        """Their size as float32, bytes."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: Any, /) -> Any:  # noqa: ANN401  an array's own signature is wider than any of ours
        """A slice of the rows, or those of an array of row numbers, as an array."""


class EmbeddingFile:
    """Embeddings that are written as they come and read in blocks; the file has no name and ends with this object.

    Args:
        dim: D.
        folder: where the file lies; it needs 4 N D bytes.
    """

    def __init__(self, dim: int, folder: Path) -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._dim, self._count = dim, 0

    def append(self, rows: NDArray[np.float32]) -> None:
        """Add rows (K, D) at the end."""
        data = np.ascontiguousarray(rows, np.float32).tobytes()
        written, end = 0, self._row_bytes * self._count
        while written < len(data):  # Linux writes at most 2 GiB at once
            written += os.pwrite(self._descriptor, data[written:], end + written)
        self._count += len(rows)

    def pop(self, count: int) -> NDArray[np.float32]:
        """Take the last rows off the end."""
        rows = self[self._count - count :]
        self._count -= count
        return rows

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return self._count, self._dim

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return self._row_bytes * self._count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, rows: slice) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]: ...
    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self._count)
            return self._read(start, max(stop - start, 0))[::step]
        chosen = np.empty((*rows.shape, self._dim), np.float32)
        for place, row in np.ndenumerate(rows):
            chosen[place] = self._read(int(row) % self._count, 1)[0]
        return chosen

    @property
    def _row_bytes(self) -> int:
        return 4 * self._dim

    def _read(self, start: int, count: int) -> NDArray[np.float32]:
        rows = np.empty((count, self._dim), np.float32)
        done = 0
        while done < rows.nbytes:  # Linux reads at most 2 GiB at once
            rest = rows.reshape(-1).view(np.uint8)[done:]
            done += os.preadv(self._descriptor, [rest.data], self._row_bytes * start + done)
        return rows


def blocks(vectors: Embeddings) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Blocks of at most `BLOCK` rows, each with the number of its first row.

    Raises:
        ValueError: a number is not finite.
    """
    for start in range(0, len(vectors), BLOCK):
        block = np.ascontiguousarray(vectors[start : start + BLOCK], np.float32)
        require_finite(block)
        yield start, block


def require_finite(embeddings: NDArray[np.float32]) -> None:
    """Check that all numbers are finite.

    Raises:
        ValueError: one is not.
    """
    if not np.isfinite(embeddings).all():
        raise ValueError("an index needs finite embeddings")
