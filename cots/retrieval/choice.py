"""Which index suits a gallery: exact while that is quick, else the fastest that finds what was asked for."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cots.retrieval.index import EmbeddingIndex

EXACT_BYTES = 32 * 2**20  # that an exact query reads at most: 32 K vectors of 256, about 2 ms (docs/performance.md)
REFINEMENTS = {"SQfp16": 2, "SQ8": 1}  # how the vectors are kept beside their short codes: bytes a component
DIMENSIONS_A_CODE = 4  # coded by four bits
FACTORS = (4, 8, 16, 32, 64)  # of k: candidates by code that are ranked again
ROUNDING = 1e-6  # of a cosine in float32
RESERVE = 0.2  # of the share that may be missed is left to queries unlike those that the settings were chosen with


@dataclass(frozen=True)
class Choice:
    """An index and what it is.

    Attributes:
        kind: FAISS's factory string.
        settings: of the search, as FAISS writes them, such as `nprobe=32,k_factor_rf=4`; empty where there are none.
    """

    index: EmbeddingIndex
    kind: str
    settings: str


def chosen_index(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], *, recall: float, k: int, max_bytes: float = math.inf
) -> Choice:
    """Build the index that finds a share of the k nearest in the least time.

    Up to `EXACT_BYTES` of vectors the search is exact. Above, vectors lie in about 4 sqrt(N) lists; those of the
    nearest lists are ranked by codes of four bits for four dimensions, and the best of them by half-precision vectors,
    or by bytes where memory asks. How many lists and how many of the best is the least that reaches the recall on the
    queries given. If none does, the search is exact. The same inputs give the same index.

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
    for refinement, width in REFINEMENTS.items():
        if _bytes(vectors, width) > max_bytes:
            continue
        kind = _kind(vectors, refinement)
        index = EmbeddingIndex.build(vectors, kind)
        for settings in _settings(index):
            index.set(settings)
            if recall_of(index.search(queries, k)[1], vectors, queries, furthest) >= recall + RESERVE * (1 - recall):
                return Choice(index, kind, settings)
    if vectors.nbytes > max_bytes:
        least = min(_bytes(vectors, width) for width in REFINEMENTS.values()) / 1e9
        raise ValueError(f"no index of {max_bytes / 1e9:.3g} GB finds {recall:.0%}: the smallest form has {least:.3g}")
    return exact


def _exact(vectors: NDArray[np.float32]) -> Choice:
    return Choice(EmbeddingIndex.build(vectors, "Flat"), "Flat", "")


def _kind(vectors: NDArray[np.float32], refinement: str) -> str:
    count, dim = vectors.shape
    lists = 2 ** round(math.log2(4 * math.sqrt(count)))
    pieces = max(dim // DIMENSIONS_A_CODE, 1)
    while dim % pieces:
        pieces -= 1
    return f"IVF{lists},PQ{pieces}x4fs,Refine({refinement})"


def _bytes(vectors: NDArray[np.float32], width: int) -> float:
    """Of vectors, codes and row numbers."""
    count, dim = vectors.shape
    return float(count * (width * dim + dim / DIMENSIONS_A_CODE / 2 + 8))


def _settings(index: EmbeddingIndex) -> Iterator[str]:
    """From the cheapest on: how many lists, and how many times k candidates."""
    for lists in (2**power for power in range(index.lists.bit_length())):
        for factor in FACTORS:
            yield f"nprobe={lists},k_factor_rf={factor}"


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
