"""Chooses the index of a gallery: exact while that is fast, otherwise the fastest one with the required recall."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cots.index.embedding_index import EmbeddingIndex

EXACT_BYTES = 32 * 2**20  # most that an exact query reads: 32 K vectors of 256, about 2 ms (docs/performance.md)
QUANTIZERS = {"SQfp16": 2, "SQ8": 1}  # formats of vectors in a graph, the most precise first: bytes per component
EF_CONSTRUCTION = "efConstruction=128"  # with FAISS's 40 a search of a million vectors needs three times the effort
HNSW_M = 16  # links per vector in the graph, twice as many on its lowest level
EF_SEARCH_GRID = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)  # candidates that a graph search keeps
ROUNDING = 1e-6  # of a cosine in float32
RESERVE = 0.2  # fraction of the allowed misses that is kept for queries unlike those used for the choice


@dataclass(frozen=True)
class IndexChoice:
    """An index and how it was built.

    Attributes:
        index: the index.
        factory: string of FAISS's index factory.
        settings: of the search, in FAISS's syntax, such as `efSearch=32`; empty if there are none.
    """

    index: EmbeddingIndex
    factory: str
    settings: str


def choose_index(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], *, recall: float, k: int, max_bytes: float = math.inf
) -> IndexChoice:
    """Build the fastest index that finds a given fraction of the k nearest vectors.

    Up to `EXACT_BYTES` of vectors, search is exact. Beyond that it uses a graph (HNSW) over vectors in half precision,
    or in 8 bits if memory is short, with the smallest efSearch that reaches the recall on the given queries. If none
    does, search is exact. The same inputs give the same index.

    Args:
        vectors: (N, D) unit rows, N > 0.
        queries: (Q, D) unit rows, representative of later queries, Q > 0.
        recall: fraction of the k nearest that must be found, in (0, 1].
        k: number of nearest vectors that count.
        max_bytes: maximum size of the index.

    Raises:
        ValueError: no index within `max_bytes` reaches the recall.
    """
    exact = _build_exact(vectors)
    if vectors.nbytes <= min(EXACT_BYTES, max_bytes):
        return exact
    k = min(k, len(vectors))
    kth_similarity = exact.index.search(queries, k)[0][:, -1]
    for quantizer, width in QUANTIZERS.items():
        if _graph_bytes(vectors, width) > max_bytes:
            continue
        factory = f"HNSW{HNSW_M},{quantizer}"
        index = EmbeddingIndex.build(vectors, factory, EF_CONSTRUCTION)
        for settings in (f"efSearch={ef_search}" for ef_search in EF_SEARCH_GRID):
            index.set(settings)
            rows = index.search(queries, k)[1]
            if recall_of(rows, vectors, queries, kth_similarity) >= recall + RESERVE * (1 - recall):
                return IndexChoice(index, factory, settings)
    if vectors.nbytes > max_bytes:
        smallest = min(_graph_bytes(vectors, width) for width in QUANTIZERS.values()) / 1e9
        raise ValueError(
            f"no index of {max_bytes / 1e9:.3g} GB finds {recall:.0%}: the smallest one has {smallest:.3g} GB"
        )
    return exact


def _build_exact(vectors: NDArray[np.float32]) -> IndexChoice:
    return IndexChoice(EmbeddingIndex.build(vectors, "Flat"), "Flat", "")


def _graph_bytes(vectors: NDArray[np.float32], width: int) -> float:
    """Bytes of vectors and links: twice `HNSW_M` row numbers on the lowest level and about four per vector above it."""
    count, dim = vectors.shape
    return float(count * (width * dim + 4 * (2 * HNSW_M + 4)))


def recall_of(
    rows: NDArray[np.int64],
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    kth_similarity: NDArray[np.float32],
) -> float:
    """Fraction of the k nearest that an index finds; any vector as similar as the exact k-th counts.

    So duplicate images do not count against the index.

    Args:
        rows: (Q, k) rows that the index finds, -1 for none.
        vectors: (N, D) the indexed vectors.
        queries: (Q, D).
        kth_similarity: (Q,) similarity of the k-th nearest vector in exact search.
    """
    similar = np.einsum("qnd,qd->qn", vectors[rows], queries) >= kth_similarity[:, None] - ROUNDING
    return float((similar & (rows >= 0)).mean())
