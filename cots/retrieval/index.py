"""The search index: FAISS over unit embeddings, built from FAISS's own factory string."""

import re
from pathlib import Path
from typing import Self

import faiss
import numpy as np
from numpy.typing import NDArray


class EmbeddingIndex:
    """Nearest items by inner product, which is the cosine for unit rows.

    Args:
        index: a FAISS index that holds its vectors; row i is the i-th embedding it was built from.
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def build(cls, embeddings: NDArray[np.float32], kind: str) -> Self:
        """Train and fill an index.

        Args:
            embeddings: (N, D) unit rows.
            kind: a string of FAISS's index factory, such as `Flat`, `HNSW32` or `IVF1024,PQ32`.

        Raises:
            ValueError: no or broken embeddings, a kind that FAISS does not know, or one that needs more
                vectors to train than there are.
        """
        if embeddings.ndim != 2 or not len(embeddings):
            raise ValueError(f"an index needs (N, D) embeddings with N > 0, not {embeddings.shape}")
        if not np.isfinite(embeddings).all():
            raise ValueError("an index needs finite embeddings")
        vectors = np.ascontiguousarray(embeddings, np.float32)
        index = _untrained(vectors.shape[1], kind)
        try:
            index.train(vectors)
            index.add(vectors)
        except RuntimeError as error:
            raise ValueError(f"cannot build {kind!r} from {len(vectors)} vectors: {_reason(error)}") from None
        return cls(index)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an index that `save` wrote.

        Raises:
            ValueError: no such file, or not an index.
        """
        if not path.is_file():
            raise ValueError(f"no index {path}")
        try:
            return cls(faiss.read_index(str(path)))
        except RuntimeError as error:
            raise ValueError(f"{path} is not a FAISS index: {_reason(error)}") from None

    def save(self, path: Path) -> None:
        """Write aside and rename; the same embeddings and kind give the same bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        faiss.write_index(self._index, str(partial))
        partial.rename(path)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self._index.d)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k nearest rows of each query, nearest first.

        Args:
            queries: (Q, D); Q may be 0.
            k: at most the size of the index.

        Returns:
            Similarities (Q, k) and rows (Q, k); an approximate index that finds fewer fills up with row -1.

        Raises:
            ValueError: k out of range, or queries of another shape or not finite.
        """
        if not 1 <= k <= len(self):
            raise ValueError(f"k must be from 1 to the {len(self)} items of the index, not {k}")
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"queries must be (Q, {self.dim}), not {queries.shape}")
        if not np.isfinite(queries).all():
            raise ValueError("queries must be finite")
        scores, rows = self._index.search(np.ascontiguousarray(queries, np.float32), k)
        return scores, rows


def _untrained(dim: int, kind: str) -> faiss.Index:
    try:
        return faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(f"FAISS makes no index {kind!r} of dimension {dim}: {_reason(error)}") from None


def _reason(error: RuntimeError) -> str:
    """FAISS's own words without its source lines: "Error in <function> at <file>:<line>: '<test>' failed: <words>"."""
    return " ".join(re.split(r":\d+: |' failed: |Error: ", str(error))[-1].split())
