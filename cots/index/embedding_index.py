"""The search index: FAISS over unit embeddings, built from a string of FAISS's index factory."""

import math
import re
import tempfile
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from cots.data.object_cache import local_part
from cots.files import atomic_file
from cots.index.embedding_file import Embeddings, require_finite
from cots.index.gpu import MAX_K, GpuIndex
from cots.index.inverted_lists import TRAIN_VECTORS_PER_LIST, build_lists, is_mapped, map_lists, save_lists

RECALL_K = 10  # nearest rows that recall counts, and for which efSearch of a graph and nprobe of lists are chosen
EF_PER_EXTRA_ROW = 2  # efSearch added for each row beyond these
MAX_BRUTE_FORCE = 1 << 16  # rows that a filter may select so that they are compared one by one instead of by the graph
FILTER_EF_FACTOR = 4  # of efSearch in a filtered search, divided by the fraction of rows selected


class EmbeddingIndex:
    """Nearest rows by inner product, which is the cosine for unit rows.

    Searches without a filter run on a GPU if `faiss-gpu` sees one and `GpuIndex` supports the index.

    Args:
        index: a FAISS index with its vectors; row i is the i-th embedding that it was built from.
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index, self._lock = index, threading.Lock()

    @classmethod
    def build(cls, embeddings: NDArray[np.float32], factory: str, settings: str = "") -> Self:
        """Train and fill an index.

        Args:
            embeddings: (N, D) unit rows.
            factory: a string of FAISS's index factory, such as `Flat`, `HNSW32` or `IVF1024,PQ32`.
            settings: set before the index is filled, as in `set`, such as `efConstruction=128`.

        Raises:
            ValueError: no embeddings or broken ones, an unknown factory string, or one that needs more vectors to train
                than there are.
        """
        if embeddings.ndim != 2 or not len(embeddings):
            raise ValueError(f"an index needs (N, D) embeddings with N > 0, not {embeddings.shape}")
        require_finite(embeddings)
        vectors = np.ascontiguousarray(embeddings, np.float32)
        faiss_index = create_untrained(vectors.shape[1], factory)
        index = cls(faiss_index)
        if settings:
            index.set(settings)
        try:
            faiss_index.train(_training_sample(faiss_index, vectors))
            faiss_index.add(vectors)
        except RuntimeError as error:
            raise ValueError(f"cannot build {factory!r} from {len(vectors)} vectors: {_reason(error)}") from None
        return index

    @classmethod
    def build_mapped(cls, embeddings: Embeddings, factory: str, folder: Path) -> Self:
        """Build inverted lists in blocks, in bounded memory, into a file without a name, from which they are searched.

        Args:
            embeddings: (N, D) unit rows, at least as many as lists.
            factory: as in `build`, such as `IVF4096,SQ8`.
            folder: where the file lies until this object ends.

        Raises:
            ValueError: broken embeddings.
        """
        index = create_untrained(embeddings.shape[1], factory)
        assert isinstance(index, faiss.IndexIVF), factory
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = Path(scratch) / "lists.faiss"
            build_lists(embeddings, index, path)
            return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an index that `save` wrote.

        Inverted lists are not read but mapped: a search reads those that it probes, and the file may be removed, not
        overwritten, while this object is in use.

        Raises:
            ValueError: no such file, or not an index.
            BadInput: see `local_part`.
        """
        if not (file := local_part(path)).is_file():
            raise ValueError(f"no index {path}")
        try:
            return cls(map_lists(file) or faiss.read_index(str(file)))
        except RuntimeError as error:
            raise ValueError(f"{path} is not a FAISS index: {_reason(error)}") from None

    def save(self, path: Path) -> None:
        """Write a file; the same embeddings and factory string give the same bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._set_direct_map(kept=False)
        with atomic_file(path) as partial:
            if isinstance(self._index, faiss.IndexIVF) and is_mapped(self._index):
                save_lists(self._index, partial)
            else:
                faiss.write_index(self._index, str(partial))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self._index.d)

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(N, D) the indexed rows, as precise as the index stores them.

        Raises:
            ValueError: this kind of index cannot give them back.
        """
        try:
            rows: NDArray[np.float32] = self._index.reconstruct_n(0, len(self))
        except RuntimeError as error:
            raise ValueError(f"this index does not give its vectors back: {_reason(error)}") from None
        return rows

    def rows(self, numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """(K, D) some of the indexed rows, as precise as the index stores them.

        Raises:
            ValueError: this kind of index cannot give them back.
        """
        try:
            self._set_direct_map(kept=True)
            rows: NDArray[np.float32] = self._index.reconstruct_batch(np.asarray(numbers, np.int64))
        except RuntimeError as error:
            raise ValueError(f"this index does not give its vectors back: {_reason(error)}") from None
        return rows

    def _set_direct_map(self, *, kept: bool) -> None:
        """Keep the place of each row in inverted lists, 8 bytes a row, or forget it, as it would be saved."""
        with self._lock:
            if (lists := faiss.try_extract_index_ivf(self._index)) and lists.direct_map.no() == kept:
                lists.make_direct_map(kept)

    def set(self, settings: str) -> None:
        """Change settings of the search; they are saved with the index.

        Args:
            settings: in FAISS's syntax: `nprobe=32,k_factor_rf=4`, `efSearch=64`.

        Raises:
            ValueError: this index has no such setting.
        """
        try:
            faiss.ParameterSpace().set_index_parameters(self._index, settings)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise ValueError(f"cannot set {settings}: {_reason(error)}") from None
        vars(self).pop("_gpu", None)  # the next search copies the index with these settings

    def search(
        self, queries: NDArray[np.float32], k: int, *, id_filter: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the k nearest rows of each query, nearest first.

        Args:
            queries: (Q, D); Q may be 0.
            k: at most the size of the index, or the number of rows that `id_filter` selects.
            id_filter: (N,) True at rows that may be found; None for all rows. FAISS skips the others during the search,
                so an exact index stays exact. A graph compares a small selection row by row and raises efSearch for a
                larger one, inverted lists raise nprobe; other approximate indices have lower recall with a filter.

        Returns:
            Similarities (Q, k) and rows (Q, k); rows are -1 where an approximate index finds fewer than k.

        Raises:
            ValueError: k out of range, or queries of another shape or not finite.
        """
        max_k = len(self) if id_filter is None else int(id_filter.sum())
        if not 1 <= k <= max_k:
            raise ValueError(f"k must be from 1 to the {max_k} items of the index, not {k}")
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"queries must be (Q, {self.dim}), not {queries.shape}")
        if not np.isfinite(queries).all():
            raise ValueError("queries must be finite")
        vectors = np.ascontiguousarray(queries, np.float32)
        if id_filter is None or max_k == len(self):
            return self._search_all(vectors, k)
        return self._search_filtered(vectors, k, id_filter)

    @cached_property
    def _gpu(self) -> GpuIndex | None:
        return GpuIndex.of(self._index)

    def _search_all(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if k <= MAX_K and self._gpu is not None:
            return self._gpu.search(queries, k)
        scores, rows = self._index.search(queries, k, params=_parameters_for_k(self._index, k))
        return scores, rows

    def _search_filtered(
        self, queries: NDArray[np.float32], k: int, id_filter: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        selector = faiss.IDSelectorBitmap(np.packbits(id_filter, bitorder="little"))  # type: ignore[call-arg, arg-type]
        fraction = np.count_nonzero(id_filter) / len(id_filter)
        index = _storage_if_few(self._index, fraction)
        try:
            scores, rows = index.search(queries, k, params=_parameters(index, k, selector, fraction))
        except RuntimeError:  # plain product quantizers support no selectors: rank all rows, then filter
            scores, rows = self._search_all(queries, len(self))
            rows = np.where((rows >= 0) & id_filter[rows], rows, -1)
            first = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
            return np.take_along_axis(scores, first, axis=1), np.take_along_axis(rows, first, axis=1)
        return scores, rows


def _storage_if_few(index: faiss.Index, fraction: float) -> faiss.Index:
    """A graph's vectors without the graph, if a filter selects so few that a search would hardly meet them."""
    if isinstance(index, faiss.IndexHNSW) and fraction * index.ntotal <= MAX_BRUTE_FORCE:
        return index.storage
    return index


def _parameters_for_k(index: faiss.Index, k: int) -> Any:  # noqa: ANN401  see `_parameters`
    """Larger efSearch or nprobe if k is larger than the one it was chosen for; None otherwise: the index's own."""
    return _parameters(index, k) if k > RECALL_K and isinstance(index, faiss.IndexHNSW | faiss.IndexIVF) else None


def _parameters(index: faiss.Index, k: int, selector: Any = None, fraction: float = 1.0) -> Any:  # noqa: ANN401
    """The index's own settings, which FAISS ignores if it gets a selector, but with larger efSearch or nprobe.

    Lists: nprobe grows with the square root of k, because the lists of farther neighbours are often the same, but to
    no fewer lists than hold 2 k rows on average; and as a filter selects fewer rows.
    """
    api: Any = faiss  # its type stubs lack the keyword arguments of its constructors
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return _parameters(index.index, k, selector, fraction)
    if isinstance(index, faiss.IndexRefine):
        inner = _parameters(index.base_index, k, selector, fraction)
        return api.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        nprobe = max(index.nprobe * math.sqrt(max(k / RECALL_K, 1)), 2 * k * index.nlist / index.ntotal) / fraction
        return api.SearchParametersIVF(sel=selector, nprobe=min(math.ceil(nprobe), index.nlist))
    if isinstance(index, faiss.IndexHNSW):
        ef_search = index.hnsw.efSearch + EF_PER_EXTRA_ROW * max(k - RECALL_K, 0)
        factor = FILTER_EF_FACTOR if selector else 1
        return api.SearchParametersHNSW(sel=selector, efSearch=math.ceil(ef_search * factor / fraction))
    return api.SearchParameters(sel=selector)


def _training_sample(index: faiss.Index, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors that an index is trained on: all, or evenly spaced ones if these are enough for its lists."""
    ivf = faiss.try_extract_index_ivf(index)
    enough = TRAIN_VECTORS_PER_LIST * ivf.nlist if ivf else len(vectors)
    if len(vectors) <= enough:
        return vectors
    return vectors[np.linspace(0, len(vectors) - 1, enough, dtype=np.int64)]


def create_untrained(dim: int, factory: str) -> faiss.Index:
    """An empty index of vectors of a dimension.

    Raises:
        ValueError: FAISS does not know the factory string, or not for this dimension or for inner products.
    """
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(f"FAISS cannot create {factory!r} of dimension {dim}: {_reason(error)}") from None
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:  # FAISS ignores the metric for a graph over product codes
        raise ValueError(f"FAISS supports {factory!r} only for distances, not for inner products: choose another")
    return index


def _reason(error: RuntimeError) -> str:
    """FAISS's message without its source lines: "Error in <function> at <file>:<line>: '<test>' failed: <message>"."""
    return " ".join(re.split(r":\d+: |' failed: |Error: ", str(error))[-1].split())
