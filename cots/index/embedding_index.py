"""The search index: FAISS over unit embeddings, built from FAISS's own factory string."""

import math
import re
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from cots.files import atomic_file
from cots.index.gpu import MOST, GpuIndex

TRAINED_A_LIST = 64  # vectors; FAISS warns below 39, and more cost time without finding more
NEAREST = 10  # of which recall counts, and that a graph's efSearch is meant for
WIDER = 2  # candidates more in a graph for each row that is sought beyond these
COMPARED = 1 << 16  # rows of a selection that are compared one by one where there is a graph, at most
DETOUR = 4  # over the share of the rows that may be found: times the effort of a search of the whole graph


class EmbeddingIndex:
    """Nearest items by inner product, which is the cosine for unit rows.

    Searches of everything run on a GPU where `faiss-gpu` sees one and `GpuCopy` takes the index.

    Args:
        index: a FAISS index that holds its vectors; row i is the i-th embedding it was built from.
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def build(cls, embeddings: NDArray[np.float32], kind: str, settings: str = "") -> Self:
        """Train and fill an index.

        Args:
            embeddings: (N, D) unit rows.
            kind: a string of FAISS's index factory, such as `Flat`, `HNSW32` or `IVF1024,PQ32`.
            settings: that hold while it is built, as `set` takes them, such as `efConstruction=128`.

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
        made = cls(index)
        if settings:
            made.set(settings)
        try:
            index.train(_sample(index, vectors))
            index.add(vectors)
        except RuntimeError as error:
            raise ValueError(f"cannot build {kind!r} from {len(vectors)} vectors: {_reason(error)}") from None
        return made

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
        """Write a file; the same embeddings and kind give the same bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as aside:
            faiss.write_index(self._index, str(aside))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self._index.d)

    def set(self, settings: str) -> None:
        """Search in another way from now on, also when loaded again.

        Args:
            settings: as FAISS writes them: `nprobe=32,k_factor_rf=4`, `efSearch=64`.

        Raises:
            ValueError: this kind of index has none of that name.
        """
        try:
            faiss.ParameterSpace().set_index_parameters(self._index, settings)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise ValueError(f"cannot set {settings}: {_reason(error)}") from None
        vars(self).pop("_gpu", None)  # made anew, with these settings

    def search(
        self, queries: NDArray[np.float32], k: int, *, id_filter: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k nearest rows of each query, nearest first.

        Args:
            queries: (Q, D); Q may be 0.
            k: at most the size of the index, or the number of rows in `among`.
            among: (N,) True at the rows that may be found; all, if it is left out. FAISS leaves the others out while
                it searches, so an exact index stays exact. A graph compares a small selection row by row and looks the
                longer for a large one the smaller it is; other approximate indices find less of a selection.

        Returns:
            Similarities (Q, k) and rows (Q, k); an approximate index that finds fewer fills up with row -1.

        Raises:
            ValueError: k out of range, or queries of another shape or not finite.
        """
        most = len(self) if id_filter is None else int(id_filter.sum())
        if not 1 <= k <= most:
            raise ValueError(f"k must be from 1 to the {most} items of the index, not {k}")
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"queries must be (Q, {self.dim}), not {queries.shape}")
        if not np.isfinite(queries).all():
            raise ValueError("queries must be finite")
        asked = np.ascontiguousarray(queries, np.float32)
        if id_filter is None or most == len(self):
            return self._among_all(asked, k)
        return self._selected(asked, k, id_filter)

    @cached_property
    def _gpu(self) -> GpuIndex | None:
        return GpuIndex.of(self._index)

    def _among_all(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if k <= MOST and self._gpu is not None:
            return self._gpu.search(queries, k)
        scores, rows = self._index.search(queries, k, params=_wider(self._index, k))
        return scores, rows

    def _selected(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        selector = faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))  # type: ignore[call-arg, arg-type]
        share = np.count_nonzero(among) / len(among)
        index = _searched(self._index, share)
        try:
            scores, rows = index.search(queries, k, params=_parameters(index, k, selector, share))
        except RuntimeError:  # plain product quantizers know no selectors: rank everything, then leave out
            scores, rows = self._among_all(queries, len(self))
            rows = np.where((rows >= 0) & among[rows], rows, -1)
            first = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
            return np.take_along_axis(scores, first, axis=1), np.take_along_axis(rows, first, axis=1)
        return scores, rows


def _searched(index: faiss.Index, share: float) -> faiss.Index:
    """A graph's vectors where a search would lose its way among rows that it may not find, and few are left."""
    if isinstance(index, faiss.IndexHNSW) and share * index.ntotal <= COMPARED:
        return index.storage
    return index


def _wider(index: faiss.Index, k: int) -> Any:  # noqa: ANN401  see `_parameters`
    """For a graph that is asked for more than it was set for; None, the index's own settings, for the rest."""
    return _parameters(index, k) if k > NEAREST and isinstance(index, faiss.IndexHNSW) else None


def _parameters(index: faiss.Index, k: int, selector: Any = None, share: float = 1.0) -> Any:  # noqa: ANN401  see below
    """Search as the index is set, which FAISS forgets where it is given a selector; a graph with more effort."""
    made: Any = faiss  # its type stubs lack the keywords that its constructors take
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return _parameters(index.index, k, selector, share)
    if isinstance(index, faiss.IndexRefine):
        inner = _parameters(index.base_index, k, selector, share)
        return made.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return made.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
    if isinstance(index, faiss.IndexHNSW):
        effort = index.hnsw.efSearch + WIDER * max(k - NEAREST, 0)
        return made.SearchParametersHNSW(sel=selector, efSearch=math.ceil(effort * (DETOUR if selector else 1) / share))
    return made.SearchParameters(sel=selector)


def _sample(index: faiss.Index, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """What an index is trained on: everything, or evenly spaced rows where that is enough for its lists."""
    ivf = faiss.try_extract_index_ivf(index)
    enough = TRAINED_A_LIST * ivf.nlist if ivf else len(vectors)
    if len(vectors) <= enough:
        return vectors
    return vectors[np.linspace(0, len(vectors) - 1, enough, dtype=np.int64)]


def _untrained(dim: int, kind: str) -> faiss.Index:
    try:
        index = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(f"FAISS makes no index {kind!r} of dimension {dim}: {_reason(error)}") from None
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:  # a graph over product codes takes distances unasked
        raise ValueError(f"FAISS makes {kind!r} for distances alone, not for similarities: choose another kind")
    return index


def _reason(error: RuntimeError) -> str:
    """FAISS's own words without its source lines: "Error in <function> at <file>:<line>: '<test>' failed: <words>"."""
    return " ".join(re.split(r":\d+: |' failed: |Error: ", str(error))[-1].split())
