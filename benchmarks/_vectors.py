"""Random vectors distributed like embeddings, and the recall of a search."""

import numpy as np
from numpy.typing import NDArray

DIM = 256
Rows = NDArray[np.float32]


def gallery(size: int, num_queries: int) -> tuple[Rows, Rows]:
    """(size, DIM) unit vectors and (num_queries, DIM) queries."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(64, DIM)).astype(np.float32)
    centres = rng.normal(size=(size // 25, 64)).astype(np.float32)
    vectors = np.empty((size, DIM), np.float32)
    for start in range(0, size, 100_000):
        part = vectors[start : start + 100_000]
        centre = centres[rng.integers(len(centres), size=len(part))] + 0.7 * rng.normal(size=(len(part), 64)).astype(
            np.float32
        )
        part[:] = l2_normalize(centre @ directions + rng.normal(size=part.shape).astype(np.float32))
    noise = rng.normal(size=(num_queries, DIM)).astype(np.float32)
    return vectors, l2_normalize(vectors[rng.integers(size, size=num_queries)] + 0.03 * noise)


def l2_normalize(rows: Rows) -> Rows:
    """Rows scaled to length one."""
    normalized: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalized


def recall(results: NDArray[np.int64], nearest: NDArray[np.int64]) -> float:
    """Mean over queries of the fraction of the nearest rows (Q, K) that are among the results (Q, K)."""
    hits = (results[:, :, None] == nearest[:, None, :]).any(axis=1)
    return float(np.count_nonzero(hits) / hits.size)
