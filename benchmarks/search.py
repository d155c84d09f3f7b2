"""Search: the index of `index.factory: auto`, and numpy, hnswlib and usearch at equal recall@10.

Vectors of dimension 256, 25 around each centre in a subspace of 64, with noise in all 256, are distributed like image
embeddings; queries are vectors with noise, as captions are near their images. Every approximate index gets the lowest
search setting that reaches a recall of 0.95. Rates on one thread and on two are those of batches of 1,000 queries,
interleaved; single queries go through each library's Python API. `python -m benchmarks.search 100000` measures one
size only.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import hnswlib
import numpy as np
from numpy.typing import NDArray
from usearch.index import Index as UsearchIndex

from benchmarks._rounds import interleave
from benchmarks._vectors import DIM, Rows, gallery, recall
from cots.index.auto_index import choose_index
from cots.index.embedding_index import EmbeddingIndex

K, RECALL = 10, 0.95
QUERIES, SINGLE = 1_000, 500
HNSW_M, EF_CONSTRUCTION = 16, 128  # of the graphs
EF_SEARCH_GRID = [10 << power for power in range(9)]
THREADS = 2


class Searcher(NamedTuple):
    """One library's index over the vectors."""

    search: Callable[[Rows, int], NDArray[np.int64]]  # queries, threads
    bytes_per_vector: float
    seconds: float  # to build it
    note: str


def main(sizes: tuple[int, ...] = (100_000, 1_000_000), rounds: int = 5) -> None:
    """Print a table for each number of vectors."""
    for size in sizes:
        table(size, rounds=rounds)


def smoke() -> None:
    """Few vectors, one round."""
    main((40_000,), rounds=1)


def table(size: int, *, rounds: int) -> None:
    """Print rates, latencies, memory and build time."""
    vectors, both = gallery(size, 2 * QUERIES)
    tuning, queries = both[:QUERIES], both[QUERIES:]
    exact = EmbeddingIndex.build(vectors, "Flat")
    nearest = exact.search(tuning, K)[1], exact.search(queries, K)[1]
    searchers = {name: build(vectors, tuning, nearest[0]) for name, build in BUILDERS.items()}
    print(f"{size:,} vectors of {DIM}, recall@{K} of at least {RECALL:.0%}; {rounds} rounds of {len(queries)} queries")
    rates = {}
    for threads in (1, THREADS):
        rates[threads] = interleave(
            {name: _at(searcher, queries, threads) for name, searcher in searchers.items()}, rounds=rounds
        )
    for name, searcher in searchers.items():
        reached = recall(searcher.search(queries, 1), nearest[1])
        one_thread, all_threads = (len(queries) / statistics.median(rates[threads][name]) for threads in rates)
        single = sorted(_single(searcher, query) for query in queries[:SINGLE])
        print(
            f"  {name:<14} recall {reached:.3f}  {one_thread:9,.0f} q/s  {all_threads:9,.0f} q/s on {THREADS} threads  "
            f"single p50 {1000 * single[len(single) // 2]:6.3f} ms, p99 {1000 * single[-len(single) // 100]:6.3f} ms  "
            f"{searcher.bytes_per_vector:5,.0f} B per vector  built in {searcher.seconds:4.0f} s  {searcher.note}",
            flush=True,
        )
    seconds = _read_seconds(vectors)
    print(f"  reading all vectors takes {1000 * seconds:.2f} ms: an exact search of one query cannot take less")


def ours(vectors: Rows, queries: Rows, _: NDArray[np.int64]) -> Searcher:
    """The index that stage `index` builds."""
    faiss.omp_set_num_threads(THREADS)
    start = time.perf_counter()
    choice = choose_index(vectors, queries, recall=RECALL, k=K)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        choice.index.save(Path(folder) / "index.faiss")
        size = (Path(folder) / "index.faiss").stat().st_size / len(vectors)

    def search(batch: Rows, threads: int) -> NDArray[np.int64]:
        faiss.omp_set_num_threads(threads)
        return choice.index.search(batch, K)[1]

    return Searcher(search, size, seconds, f"{choice.factory} {choice.settings}")


def by_numpy(vectors: Rows, _: Rows, __: NDArray[np.int64]) -> Searcher:
    """Exact search: a matrix product and the best of each row."""

    def search(batch: Rows, _: int) -> NDArray[np.int64]:
        rows = [np.argpartition(part @ vectors.T, -K)[:, -K:] for part in np.array_split(batch, -(-len(batch) // 100))]
        return np.concatenate(rows)

    return Searcher(search, 4 * DIM, 0.0, "exact, its product on all threads")


def by_hnswlib(vectors: Rows, queries: Rows, nearest: NDArray[np.int64]) -> Searcher:
    """An HNSW graph in float32."""
    graph = hnswlib.Index(space="ip", dim=DIM)
    start = time.perf_counter()
    graph.init_index(len(vectors), ef_construction=EF_CONSTRUCTION, M=HNSW_M)
    graph.add_items(vectors, num_threads=THREADS)
    seconds = time.perf_counter() - start

    def search(batch: Rows, threads: int) -> NDArray[np.int64]:
        return np.asarray(graph.knn_query(batch, K, num_threads=threads)[0], np.int64)

    ef = tune_search(graph.set_ef, search, queries, nearest)
    return Searcher(search, graph.index_file_size() / len(vectors), seconds, f"M={HNSW_M} ef={ef}")


def by_usearch(vectors: Rows, queries: Rows, nearest: NDArray[np.int64]) -> Searcher:
    """An HNSW graph in half precision."""
    graph = UsearchIndex(ndim=DIM, metric="ip", dtype="f16", connectivity=HNSW_M, expansion_add=EF_CONSTRUCTION)
    start = time.perf_counter()
    graph.add(np.arange(len(vectors)), vectors, threads=THREADS)
    seconds = time.perf_counter() - start

    def search(batch: Rows, threads: int) -> NDArray[np.int64]:
        return np.asarray(graph.search(batch, K, threads=threads).keys, np.int64).reshape(len(batch), K)

    ef = tune_search(partial(setattr, graph, "expansion_search"), search, queries, nearest)
    return Searcher(search, graph.serialized_length / len(vectors), seconds, f"f16 M={HNSW_M} expansion={ef}")


BUILDERS: dict[str, Callable[[Rows, Rows, NDArray[np.int64]], Searcher]] = {
    "ours": ours,
    "numpy": by_numpy,
    "hnswlib": by_hnswlib,
    "usearch": by_usearch,
}


def tune_search(
    set_value: Callable[[int], Any],
    search: Callable[[Rows, int], NDArray[np.int64]],
    queries: Rows,
    nearest: NDArray[np.int64],
) -> int:
    """Set the first value of the grid that reaches the recall, or the last."""
    for value in EF_SEARCH_GRID:
        set_value(value)
        if recall(search(queries, THREADS), nearest) >= RECALL:
            return value
    return EF_SEARCH_GRID[-1]


def _at(searcher: Searcher, queries: Rows, threads: int) -> Callable[[], object]:
    return lambda: searcher.search(queries, threads)


def _single(searcher: Searcher, query: Rows) -> float:
    start = time.perf_counter()
    searcher.search(query[None], 1)
    return time.perf_counter() - start


def _read_seconds(vectors: Rows) -> float:
    return min(interleave({"read": lambda: vectors.max()}, rounds=3)["read"])


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or (100_000, 1_000_000))
