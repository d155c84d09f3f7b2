"""Search: the index that `index.factory: auto` builds, against numpy, hnswlib and usearch at equal recall@10.

Vectors of 256, 25 around each centre in 64 directions, with noise in all 256, as embeddings of pictures lie; queries
are vectors with noise, as captions lie beside their pictures. Every approximate index gets the least effort that finds
95 % of the ten nearest. Rates of one thread and of two are of batches of 1,000 queries in turn; single queries go
through each library's Python calls one by one. `python -m benchmarks.search 100000` measures one size alone.
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

from benchmarks._rounds import in_turn
from benchmarks._vectors import DIM, Rows, gallery, share_found
from cots.index.auto_index import choose_index
from cots.index.embedding_index import EmbeddingIndex

K, RECALL = 10, 0.95
QUERIES, SINGLE = 1_000, 500
LINKS, CARE = 16, 128  # of the graphs, and how many candidates are kept while they are built
EFFORTS = [10 << power for power in range(9)]  # of a graph's search
THREADS = 2


class Searcher(NamedTuple):
    """One library's index over the vectors."""

    search: Callable[[Rows, int], NDArray[np.int64]]  # queries, threads
    bytes_a_vector: float
    seconds: float  # to build
    note: str


def main(sizes: tuple[int, ...] = (100_000, 1_000_000), rounds: int = 5) -> None:
    """Print a table for each number of vectors."""
    for size in sizes:
        table(size, rounds=rounds)


def smoke() -> None:
    """Few vectors, one round."""
    main((40_000,), rounds=1)


def table(size: int, *, rounds: int) -> None:
    """Print rates, latencies, memory and time to build."""
    vectors, asked = gallery(size, 2 * QUERIES)
    tuning, queries = asked[:QUERIES], asked[QUERIES:]
    exact = EmbeddingIndex.build(vectors, "Flat")
    near = exact.search(tuning, K)[1], exact.search(queries, K)[1]
    made = {name: build(vectors, tuning, near[0]) for name, build in BUILDERS.items()}
    print(f"{size:,} vectors of {DIM}, recall@{K} of {RECALL:.0%} asked; {rounds} rounds of {len(queries)} queries")
    rates = {}
    for threads in (1, THREADS):
        rates[threads] = in_turn({name: _at(one, queries, threads) for name, one in made.items()}, rounds=rounds)
    for name, one in made.items():
        recall = share_found(one.search(queries, 1), near[1])
        first, both = (len(queries) / statistics.median(rates[threads][name]) for threads in rates)
        alone = sorted(_alone(one, query) for query in queries[:SINGLE])
        print(
            f"  {name:<14} recall {recall:.3f}  {first:9,.0f} q/s  {both:9,.0f} q/s on {THREADS} threads  "
            f"alone p50 {1000 * alone[len(alone) // 2]:6.3f} ms, p99 {1000 * alone[-len(alone) // 100]:6.3f} ms  "
            f"{one.bytes_a_vector:5,.0f} B a vector  built in {one.seconds:4.0f} s  {one.note}",
            flush=True,
        )
    seconds = _read_seconds(vectors)
    print(f"  all vectors are read in {1000 * seconds:.2f} ms: exact search of one query cannot take less")


def ours(vectors: Rows, queries: Rows, _: NDArray[np.int64]) -> Searcher:
    """As `cots index` builds it."""
    faiss.omp_set_num_threads(THREADS)
    start = time.perf_counter()
    choice = choose_index(vectors, queries, recall=RECALL, k=K)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        choice.index.save(Path(folder) / "index.faiss")
        size = (Path(folder) / "index.faiss").stat().st_size / len(vectors)

    def search(asked: Rows, threads: int) -> NDArray[np.int64]:
        faiss.omp_set_num_threads(threads)
        return choice.index.search(asked, K)[1]

    return Searcher(search, size, seconds, f"{choice.factory} {choice.settings}")


def by_numpy(vectors: Rows, _: Rows, __: NDArray[np.int64]) -> Searcher:
    """Exact: a matrix product and the best of each row."""

    def search(asked: Rows, _: int) -> NDArray[np.int64]:
        found = [np.argpartition(part @ vectors.T, -K)[:, -K:] for part in np.array_split(asked, -(-len(asked) // 100))]
        return np.concatenate(found)

    return Searcher(search, 4 * DIM, 0.0, "exact, its product on every thread")


def by_hnswlib(vectors: Rows, queries: Rows, nearest: NDArray[np.int64]) -> Searcher:
    """A graph in float32."""
    graph = hnswlib.Index(space="ip", dim=DIM)
    start = time.perf_counter()
    graph.init_index(len(vectors), ef_construction=CARE, M=LINKS)
    graph.add_items(vectors, num_threads=THREADS)
    seconds = time.perf_counter() - start

    def search(asked: Rows, threads: int) -> NDArray[np.int64]:
        return np.asarray(graph.knn_query(asked, K, num_threads=threads)[0], np.int64)

    effort = least_effort(graph.set_ef, search, queries, nearest)
    return Searcher(search, graph.index_file_size() / len(vectors), seconds, f"M={LINKS} ef={effort}")


def by_usearch(vectors: Rows, queries: Rows, nearest: NDArray[np.int64]) -> Searcher:
    """A graph in half precision."""
    graph = UsearchIndex(ndim=DIM, metric="ip", dtype="f16", connectivity=LINKS, expansion_add=CARE)
    start = time.perf_counter()
    graph.add(np.arange(len(vectors)), vectors, threads=THREADS)
    seconds = time.perf_counter() - start

    def search(asked: Rows, threads: int) -> NDArray[np.int64]:
        return np.asarray(graph.search(asked, K, threads=threads).keys, np.int64).reshape(len(asked), K)

    effort = least_effort(partial(setattr, graph, "expansion_search"), search, queries, nearest)
    return Searcher(search, graph.serialized_length / len(vectors), seconds, f"f16 M={LINKS} expansion={effort}")


BUILDERS: dict[str, Callable[[Rows, Rows, NDArray[np.int64]], Searcher]] = {
    "ours": ours,
    "numpy": by_numpy,
    "hnswlib": by_hnswlib,
    "usearch": by_usearch,
}


def least_effort(
    set_effort: Callable[[int], Any],
    search: Callable[[Rows, int], NDArray[np.int64]],
    queries: Rows,
    nearest: NDArray[np.int64],
) -> int:
    """Set the first effort that finds enough, or the last."""
    for effort in EFFORTS:
        set_effort(effort)
        if share_found(search(queries, THREADS), nearest) >= RECALL:
            return effort
    return EFFORTS[-1]


def _at(one: Searcher, queries: Rows, threads: int) -> Callable[[], object]:
    return lambda: one.search(queries, threads)


def _alone(one: Searcher, query: Rows) -> float:
    start = time.perf_counter()
    one.search(query[None], 1)
    return time.perf_counter() - start


def _read_seconds(vectors: Rows) -> float:
    return min(in_turn({"read": lambda: vectors.max()}, rounds=3)["read"])


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or (100_000, 1_000_000))
