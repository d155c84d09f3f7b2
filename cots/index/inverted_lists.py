"""Inverted lists of vectors that do not fit in memory: built in blocks into one file, which is mapped to be searched.

The file is the one that FAISS writes of an index in memory. It ends with the sizes of the lists and, for each list, its
codes and row numbers, so it can be written list by list.
"""

import os
from collections.abc import Iterable
from math import isqrt, log2, sqrt
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from cots.index.embedding_file import Embeddings, blocks, require_finite

_faiss: Any = faiss  # its type stubs lack what SWIG adds
LISTS_PER_ROOT = 4  # lists for each square root of the number of vectors, before rounding to a power of two
TRAIN_VECTORS_PER_LIST = 64  # FAISS warns below 39; more take time without better recall
REFINEMENTS = 3  # steps of k-means over all lists, after those within each group
MIN_LENGTH = 1e-12
ENCODER_VECTORS = 1 << 16  # vectors of which the range of each component is taken
GROUPS_SEARCHED = 4  # nearest groups of lists in which the list of a vector is searched
BLOCKS_PER_RUN = 8  # blocks of vectors that are written to their lists together
MAPPED = (b"IwFl", b"IwSq", b"IwPQ")  # first bytes of the kinds of index whose file ends with the lists
ROW_BYTES = 8  # of a row number in a list
END_OF_HEAD = 12  # bytes of an empty index behind its head: the word `sprs` and the number of filled lists, 0


def num_lists(num_vectors: int) -> int:
    """Number of lists for so many vectors: a power of two near `LISTS_PER_ROOT` square roots, no more than vectors."""
    return 1 << min(round(log2(LISTS_PER_ROOT * sqrt(num_vectors))), int(log2(num_vectors)))


def map_lists(path: Path) -> faiss.IndexIVF | None:
    """Open an index whose lists stay on disk; None if it is of a kind whose file does not end with lists.

    Raises:
        RuntimeError: the file is cut off or damaged.
    """
    with path.open("rb") as file:
        if file.read(4) not in MAPPED:
            return None
    index: faiss.IndexIVF = _faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    _lists_of(index).prefetch_nthread = 0  # FAISS would start 32 threads for every search
    return index


def is_mapped(index: faiss.IndexIVF) -> bool:
    """Whether the lists stay on disk."""
    return isinstance(_lists_of(index), _faiss.OnDiskInvertedLists)


def _lists_of(index: faiss.IndexIVF) -> Any:  # noqa: ANN401  see `_faiss`
    return _faiss.downcast_InvertedLists(index.invlists)


def build_lists(vectors: Embeddings, index: faiss.IndexIVF, path: Path) -> None:
    """Write an index of inverted lists; in memory are a sample, a run of blocks and the list of each vector.

    Centroids come from k-means in two levels: groups, then lists within each group, then some steps over all lists. A
    vector goes to the nearest list of the `GROUPS_SEARCHED` nearest groups. The same vectors give the same bytes.

    Args:
        vectors: (N, D) unit rows, at least as many as lists.
        index: empty and untrained, its lists assigned by exact search (`IVF4096,SQ8`); it is trained and stays empty.
        path: the file to write.

    Raises:
        ValueError: a number is not finite.
    """
    rows = np.linspace(0, len(vectors) - 1, min(len(vectors), TRAIN_VECTORS_PER_LIST * index.nlist), dtype=np.int64)
    sample = vectors[rows]
    require_finite(sample)
    centroids = _cluster(sample, index.nlist)
    index.quantizer.add(centroids.vectors)
    index.train(np.ascontiguousarray(sample[:: -(-len(sample) // ENCODER_VECTORS)]))
    del sample
    lists = np.concatenate([centroids.nearest(block) for _, block in blocks(vectors)])
    sizes = np.bincount(lists, minlength=index.nlist)
    head = _head(index, sizes)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + int(sizes.sum()) * (index.code_size + ROW_BYTES))
        _write_runs(file.fileno(), vectors, index, lists, sizes, len(head))


def save_lists(index: faiss.IndexIVF, path: Path) -> None:
    """Copy an index whose lists are mapped from a file, with its settings of now, into a file of its own."""
    lists = _lists_of(index)
    sizes = np.array([lists.list_size(number) for number in range(index.nlist)], np.int64)
    with path.open("wb") as file:
        file.write(_head(index, sizes))
        for number in np.flatnonzero(sizes).tolist():
            for part in _list(lists, number):
                file.write(part)


class _Centroids:
    """Centroids of lists in groups, which lie in their order.

    Args:
        groups: (G, D) centroids of groups.
        centroids: (L, D) of lists, which are put into the order of their nearest groups.
    """

    def __init__(self, groups: NDArray[np.float32], centroids: NDArray[np.float32]) -> None:
        group_of = _nearest(centroids, groups, 1)[:, 0]
        self.groups, self.vectors = groups, centroids[np.argsort(group_of, kind="stable")]
        self._ends = np.cumsum(np.bincount(group_of, minlength=len(groups)))

    def nearest(self, rows: NDArray[np.float32]) -> NDArray[np.int32]:
        """(N,) the list nearest to each row, of those in its `GROUPS_SEARCHED` nearest groups that have lists."""
        filled = np.flatnonzero(np.diff(self._ends, prepend=0))
        groups = filled[_nearest(rows, self.groups[filled], min(GROUPS_SEARCHED, len(filled)))]
        best, lists = np.full(len(rows), -np.inf, np.float32), np.zeros(len(rows), np.int32)
        for group in filled.tolist():
            chosen = np.flatnonzero((groups == group).any(axis=1))
            end = self._ends[group]
            start = self._ends[group - 1] if group else 0
            similarities = rows[chosen] @ self.vectors[start:end].T  # (N', L')
            in_group = similarities.argmax(axis=1)
            highest = similarities[np.arange(len(chosen)), in_group]
            is_better = highest > best[chosen]
            best[chosen[is_better]] = highest[is_better]
            lists[chosen[is_better]] = start + in_group[is_better]
        return lists

    def refine(self, sample: NDArray[np.float32]) -> "_Centroids":
        """Each as the direction of the sample's rows that are nearest to it; unchanged if there are none."""
        sums = np.zeros_like(self.vectors)
        for _, block in blocks(sample):
            np.add.at(sums, self.nearest(block), block)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        return _Centroids(self.groups, np.where(lengths > 0, sums / np.maximum(lengths, MIN_LENGTH), self.vectors))


def _cluster(sample: NDArray[np.float32], num_lists: int) -> _Centroids:
    """K-means in two levels, groups and lists within each, then `REFINEMENTS` steps over all lists."""
    options = {"niter": 10, "seed": 1234, "spherical": True, "min_points_per_centroid": 1}
    kmeans = _faiss.Kmeans(sample.shape[1], isqrt(num_lists), **options)
    kmeans.train(sample)
    group_of = _nearest(sample, kmeans.centroids, 1)[:, 0]
    counts = share_lists(np.bincount(group_of, minlength=kmeans.k), num_lists)
    parts = []
    for group in np.flatnonzero(counts).tolist():
        of_group = _faiss.Kmeans(sample.shape[1], int(counts[group]), **options)
        of_group.train(np.ascontiguousarray(sample[group_of == group]))
        parts.append(of_group.centroids)
    centroids = _Centroids(kmeans.centroids, np.concatenate(parts))
    for _ in range(REFINEMENTS):
        centroids = centroids.refine(sample)
    return centroids


def _nearest(rows: NDArray[np.float32], vectors: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """(N, count) numbers of the vectors nearest to each row."""
    numbers: NDArray[np.int64] = faiss.knn(rows, vectors, count, faiss.METRIC_INNER_PRODUCT)[1]
    return numbers


def share_lists(sizes: NDArray[np.int64], num_lists: int) -> NDArray[np.int64]:
    """Lists of each group, in proportion to its vectors, of which there are at least as many as lists."""
    ends = np.round(np.cumsum(sizes) * num_lists / sizes.sum()).astype(np.int64)
    counts: NDArray[np.int64] = np.diff(ends, prepend=0)
    return counts


def _write_runs(
    descriptor: int,
    vectors: Embeddings,
    index: faiss.IndexIVF,
    lists: NDArray[np.int32],
    sizes: NDArray[np.int64],
    start: int,
) -> None:
    """Write codes and row numbers to their places; a list gets its vectors in the order of their rows."""
    first_code = start + (np.cumsum(sizes) - sizes) * (index.code_size + ROW_BYTES)
    first_row = first_code + sizes * index.code_size
    for number, (row, block) in enumerate(blocks(vectors), start=1):
        rows = np.arange(row, row + len(block))
        _add_to_lists(index, block, rows, lists[row : row + len(block)].astype(np.int64))
        if number % BLOCKS_PER_RUN and row + len(block) < len(vectors):
            continue
        for filled in np.unique(lists[row + len(block) - index.ntotal : row + len(block)]).tolist():
            codes, numbers = _list(index.invlists, filled)
            _write_at(descriptor, codes, int(first_code[filled]))
            _write_at(descriptor, numbers, int(first_row[filled]))
            first_code[filled] += codes.nbytes
            first_row[filled] += numbers.nbytes
        index.reset()


def _write_at(descriptor: int, data: NDArray[Any], offset: int) -> None:
    if os.pwrite(descriptor, data.data, offset) != data.nbytes:
        raise OSError(f"the disk took only a part of a list of {data.nbytes} bytes")


def _add_to_lists(
    index: faiss.IndexIVF, vectors: NDArray[np.float32], rows: NDArray[np.int64], lists: NDArray[np.int64]
) -> None:
    api: Any = index
    arrays = [_faiss.swig_ptr(np.ascontiguousarray(array)) for array in (vectors, rows, lists)]
    api.add_core(len(vectors), *arrays)


def _list(lists: Any, number: int) -> Iterable[Any]:  # noqa: ANN401  see `_faiss`
    """Codes (bytes) and row numbers (int64) of a list, as views."""
    size = lists.list_size(number)
    codes = _faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
    return codes, _faiss.rev_swig_ptr(lists.get_ids(number), size)


def _head(index: faiss.IndexIVF, sizes: NDArray[np.int64]) -> bytes:
    """What FAISS writes before the first list of an index that has lists of these sizes."""
    api: Any = index
    lists, owned, count = api.invlists, api.own_invlists, api.ntotal
    empty = _faiss.ArrayInvertedLists(index.nlist, index.code_size)
    api.own_invlists = False
    api.replace_invlists(empty, False)
    api.ntotal = int(sizes.sum())
    try:
        head = bytes(faiss.serialize_index(index))[:-END_OF_HEAD]
    finally:
        api.replace_invlists(lists, owned)
        api.ntotal = count
    return head + b"full" + np.array([len(sizes), *sizes], np.uint64).tobytes()
