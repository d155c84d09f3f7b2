"""Vectors as embeddings lie, and how many of the nearest a search has found."""

import numpy as np
from numpy.typing import NDArray

DIM = 256
Rows = NDArray[np.float32]


def gallery(size: int, asked: int) -> tuple[Rows, Rows]:
    """(size, DIM) unit vectors and (asked, DIM) queries."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(64, DIM)).astype(np.float32)
    centres = rng.normal(size=(size // 25, 64)).astype(np.float32)
    vectors = np.empty((size, DIM), np.float32)
    for start in range(0, size, 100_000):
        part = vectors[start : start + 100_000]
        own = centres[rng.integers(len(centres), size=len(part))] + 0.7 * rng.normal(size=(len(part), 64)).astype(
            np.float32
        )
        part[:] = unit(own @ directions + rng.normal(size=part.shape).astype(np.float32))
    noise = rng.normal(size=(asked, DIM)).astype(np.float32)
    return vectors, unit(vectors[rng.integers(size, size=asked)] + 0.03 * noise)


def unit(rows: Rows) -> Rows:
    """Rows of length one."""
    made: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made


def share_found(found: NDArray[np.int64], nearest: NDArray[np.int64]) -> float:
    """Mean over queries of the share of the nearest rows (Q, K) that is among those found (Q, K)."""
    hits = (found[:, :, None] == nearest[:, None, :]).any(axis=1)
    return float(np.count_nonzero(hits) / hits.size)
