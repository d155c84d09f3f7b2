"""Chooses the index of a gallery: exact while that is fast, otherwise the fastest one with the required recall."""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from cots.index.embedding_file import Embeddings, blocks
from cots.index.embedding_index import EmbeddingIndex
from cots.index.inverted_lists import num_lists

EXACT_BYTES = 32 * 2**20  # most that an exact query reads: 32 K vectors of 256, about 2 ms (docs/performance.md)
GRAPH_BYTES = 2 * 2**30  # of vectors in float32 up to which a graph is built: 2 M of 256, half an hour of one core
LIST_QUANTIZERS = ("SQ8", "SQfp16")  # formats of vectors in lists on disk, the one that reads fewest bytes first
NPROBE_GRID = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # lists that a search reads
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
    vectors: Embeddings,
    queries: NDArray[np.float32],
    *,
    recall: float,
    k: int,
    max_bytes: float = math.inf,
    folder: Path | None = None,
) -> IndexChoice:
    """Build the fastest index that finds a given fraction of the k nearest vectors.

    Up to `EXACT_BYTES` of vectors, search is exact. Up to `GRAPH_BYTES` it uses a graph (HNSW) over vectors in half
    precision, or in 8 bits if memory is short; beyond that, or if no graph fits, inverted lists on disk, built in
    blocks. Either gets the smallest efSearch or nprobe that reaches the recall on the given queries. If none does,
    search is exact. The same inputs give the same index.

    Args:
        vectors: (N, D) unit rows, N > 0.
        queries: (Q, D) unit rows, representative of later queries, Q > 0.
        recall: fraction of the k nearest that must be found, in (0, 1].
        k: number of nearest vectors that count.
        max_bytes: maximum memory of the index; of lists, which the operating system reads from the disk and drops as
            memory allows, only the centroids count.
        folder: where lists lie until the returned index ends; None for the system's folder of temporary files.

    Raises:
        ValueError: no index within `max_bytes` reaches the recall.
    """
    if vectors.nbytes <= min(EXACT_BYTES, max_bytes):
        return _build_exact(vectors)
    k = min(k, len(vectors))
    kth_similarity = nearest_similarities(vectors, queries, k)[:, -1]
    sizes = _graphs(vectors)
    if vectors.nbytes > GRAPH_BYTES or min(sizes.values()) > max_bytes:
        sizes = _lists(vectors)
    for factory in (factory for factory, size in sizes.items() if size <= max_bytes):
        index, grid = _build(vectors, factory, folder or Path(tempfile.gettempdir()))
        for settings in grid:
            index.set(settings)
            rows = index.search(queries, k)[1]
            if recall_of(rows, vectors, queries, kth_similarity) >= recall + RESERVE * (1 - recall):
                return IndexChoice(index, factory, settings)
    if vectors.nbytes > max_bytes:
        smallest = min((_graphs(vectors) | _lists(vectors)).values()) / 1e9
        raise ValueError(
            f"no index of {max_bytes / 1e9:.3g} GB finds {recall:.0%}: the smallest one has {smallest:.3g} GB"
        )
    return _build_exact(vectors)


def nearest_similarities(vectors: Embeddings, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """(Q, k) similarities of the k nearest vectors by exact search, nearest first, with one block in memory.

    Raises:
        ValueError: a vector is not finite.
    """
    nearest = np.empty((len(queries), 0), np.float32)
    for _, block in blocks(vectors):
        in_block, _ = faiss.knn(queries, block, min(k, len(block)), faiss.METRIC_INNER_PRODUCT)
        nearest = -np.sort(-np.hstack([nearest, in_block]), axis=1)[:, :k]
    return nearest


def _graphs(vectors: Embeddings) -> dict[str, float]:
    """Graphs in the order in which they are tried, and the bytes of each."""
    count, dim = vectors.shape
    return {f"HNSW{HNSW_M},{quantizer}": _graph_bytes(count, dim, width) for quantizer, width in QUANTIZERS.items()}


def _lists(vectors: Embeddings) -> dict[str, float]:
    """Inverted lists in the order in which they are tried, and the bytes of the centroids of each."""
    count, dim = vectors.shape
    return {f"IVF{num_lists(count)},{quantizer}": 4.0 * dim * num_lists(count) for quantizer in LIST_QUANTIZERS}


def _build(vectors: Embeddings, factory: str, folder: Path) -> tuple[EmbeddingIndex, list[str]]:
    """An index, and settings of its search, the fastest first."""
    if factory.startswith("HNSW"):
        graph = EmbeddingIndex.build(vectors[:], factory, EF_CONSTRUCTION)
        return graph, [f"efSearch={value}" for value in EF_SEARCH_GRID]
    lists = EmbeddingIndex.build_mapped(vectors, factory, folder)
    return lists, [f"nprobe={value}" for value in NPROBE_GRID]


def _build_exact(vectors: Embeddings) -> IndexChoice:
    return IndexChoice(EmbeddingIndex.build(vectors[:], "Flat"), "Flat", "")


def _graph_bytes(count: int, dim: int, width: int) -> float:
    """Bytes of vectors and links: twice `HNSW_M` row numbers on the lowest level and about four per vector above it."""
    return float(count * (width * dim + 4 * (2 * HNSW_M + 4)))


def recall_of(
    rows: NDArray[np.int64],
    vectors: Embeddings,
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
