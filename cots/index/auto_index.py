"""Which index suits a gallery: exact while that is quick, else the fastest that finds what was asked for."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cots.index.embedding_index import EmbeddingIndex

EXACT_BYTES = 32 * 2**20  # that an exact query reads at most: 32 K vectors of 256, about 2 ms (docs/performance.md)
STORED = {"SQfp16": 2, "SQ8": 1}  # how a graph keeps vectors, best first: bytes a component
EF_CONSTRUCTION = "efConstruction=128"  # with FAISS's 40 a million vectors take three times the effort to search
HNSW_M = 16  # of a vector in the graph, twice as many on its lowest level
EF_SEARCH_GRID = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)  # candidates that a search in the graph keeps
ROUNDING = 1e-6  # of a cosine in float32
RESERVE = 0.2  # of the share that may be missed is left to queries unlike those that the settings were chosen with


@dataclass(frozen=True)
class IndexChoice:
    """An index and what it is.

    Attributes:
        kind: FAISS's factory string.
        settings: of the search, as FAISS writes them, such as `efSearch=32`; empty where there are none.
    """

    index: EmbeddingIndex
    kind: str
    settings: str


def choose_index(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], *, recall: float, k: int, max_bytes: float = math.inf
) -> IndexChoice:
    """Build the index that finds a share of the k nearest in the least time.

    Up to `EXACT_BYTES` of vectors the search is exact. Above, it walks a graph of neighbours (HNSW) over vectors in
    half precision, or in bytes where memory asks, with the least effort that reaches the recall on the queries given.
    If no effort does, the search is exact. The same inputs give the same index.

    Args:
        vectors: (N, D) unit rows, N > 0.
        queries: (Q, D) unit rows like those that will be asked, Q > 0.
        recall: share of the k nearest that is to be found, in (0, 1].
        k: of the nearest.
        max_bytes: of the index.

    Raises:
        ValueError: nothing that fits into `max_bytes` finds enough.
    """
    exact = _exact(vectors)
    if vectors.nbytes <= min(EXACT_BYTES, max_bytes):
        return exact
    k = min(k, len(vectors))
    furthest = exact.index.search(queries, k)[0][:, -1]
    for stored, width in STORED.items():
        if _bytes(vectors, width) > max_bytes:
            continue
        kind = f"HNSW{HNSW_M},{stored}"
        index = EmbeddingIndex.build(vectors, kind, EF_CONSTRUCTION)
        for settings in (f"efSearch={effort}" for effort in EF_SEARCH_GRID):
            index.set(settings)
            if recall_of(index.search(queries, k)[1], vectors, queries, furthest) >= recall + RESERVE * (1 - recall):
                return IndexChoice(index, kind, settings)
    if vectors.nbytes > max_bytes:
        least = min(_bytes(vectors, width) for width in STORED.values()) / 1e9
        raise ValueError(f"no index of {max_bytes / 1e9:.3g} GB finds {recall:.0%}: the smallest form has {least:.3g}")
    return exact


def _exact(vectors: NDArray[np.float32]) -> IndexChoice:
    return IndexChoice(EmbeddingIndex.build(vectors, "Flat"), "Flat", "")


def _bytes(vectors: NDArray[np.float32], width: int) -> float:
    """Of vectors and links: twice `LINKS` row numbers on the lowest level, and about four more a vector above it."""
    count, dim = vectors.shape
    return float(count * (width * dim + 4 * (2 * HNSW_M + 4)))


def recall_of(
    found: NDArray[np.int64],
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    furthest: NDArray[np.float32],
) -> float:
    """Share of the k nearest that an index finds; what is as near as the k-th counts, whichever of them it is.

    Pictures that occur twice are no fault of the index.

    Args:
        found: (Q, k) rows, -1 where there is none.
        vectors: (N, D) what was searched.
        queries: (Q, D).
        furthest: (Q,) similarity of the k-th nearest by exact search.
    """
    near = np.einsum("qnd,qd->qn", vectors[found], queries) >= furthest[:, None] - ROUNDING
    return float((near & (found >= 0)).mean())
