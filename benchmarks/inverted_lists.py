"""Search in more vectors than fit in memory: the index that `index.factory: auto` builds, by blocks, of 10 million.

200 vectors of dimension 256 lie around each centre, distributed as in `benchmarks.search`. Queries near a vector are
like captions; the others come from the same distribution, but from no vector. Each part runs in a process of its own
and prints its time and peak of memory; exact search by blocks tells recall. `python -m benchmarks.inverted_lists
FOLDER 10000000` keeps index and queries in a folder; 10 million need 20 GB of disk.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks._vectors import DIM, Rows, l2_normalize
from cots.digests import file_digest
from cots.index.auto_index import choose_index
from cots.index.embedding_file import BLOCK, EmbeddingFile, blocks
from cots.index.embedding_index import RECALL_K, EmbeddingIndex

PER_CENTRE, SUBSPACE, SPREAD = 200, 64, 0.7
QUERIES, TUNING, RECALL = 500, 250, 0.95
KINDS = ("near a vector", "of no vector")
NAMES = ("index.faiss", "queries.npz")


def main(size: int = 2_500_000) -> None:
    """Print what each part takes."""
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), size)


def smoke() -> None:
    """Each part for ten thousand vectors, which have no lists."""
    with tempfile.TemporaryDirectory() as folder:
        run_build(Path(folder), 10_000)
        run_search(Path(folder))


def measure(folder: Path, size: int) -> None:
    """Build, unless the folder has an index, and search, each in a process of its own."""
    print(f"{size:,} vectors of {DIM}, recall@{RECALL_K} of at least {RECALL:.0%}", flush=True)
    folder.mkdir(exist_ok=True)
    for part in ("search",) if (folder / NAMES[1]).exists() else ("build", "search"):
        subprocess.run([sys.executable, "-m", "benchmarks.inverted_lists", part, str(folder), str(size)], check=True)


def run_build(folder: Path, size: int) -> None:
    """Draw vectors, choose and build the index, save it."""
    start = _Clock()
    vectors, queries, tuning = _draw(size, folder)
    start.tell("drawing the vectors")
    start = _Clock()
    choice = choose_index(vectors, tuning, recall=RECALL, k=RECALL_K, folder=folder)
    start.tell(f"choosing and building {choice.factory} {choice.settings}")
    start = _Clock()
    choice.index.save(folder / NAMES[0])
    start.tell(f"saving {(folder / NAMES[0]).stat().st_size / 1e9:.2f} GB, {file_digest(folder / NAMES[0])[:12]}")
    start = _Clock()
    np.savez(folder / NAMES[1], queries=queries, nearest=np.split(_exact(vectors, np.concatenate(queries)), 2))
    start.tell("exact search by blocks")


def run_search(folder: Path) -> None:
    """Recall and time of single queries, on one thread, of lists on the disk and then in the page cache."""
    faiss.omp_set_num_threads(1)
    known = np.load(folder / NAMES[1])
    for cold in (True, False):
        if cold:
            _forget(folder / NAMES[0])
        start = _Clock()
        index = EmbeddingIndex.load(folder / NAMES[0])
        start.tell(f"loading, {'not ' if cold else ''}in the page cache")
        for kind, queries, nearest in zip(KINDS, known["queries"], known["nearest"], strict=True):
            times = [_single(index, query[None]) for query in queries]
            rows = np.array([time[2] for time in times])
            wall, cpu = (np.percentile([1000 * time[part] for time in times], [50, 99]) for part in (0, 1))
            print(
                f"  {kind:<14} recall {(rows[:, :, None] == nearest[:, None]).any(axis=1).mean():.3f}  "
                f"p50 {wall[0]:.1f} ms, p99 {wall[1]:.1f} ms; of processor time {cpu[0]:.1f}, {cpu[1]:.1f} ms",
                flush=True,
            )
        start.tell(f"{2 * QUERIES} single queries")


class _Clock:
    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def tell(self, what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        print(f"  {what}: {wall:.1f} s, {cpu:.1f} s of CPU, peak so far {peak:.2f} GB", flush=True)


def _draw(size: int, folder: Path) -> tuple[EmbeddingFile, tuple[Rows, Rows], Rows]:
    """Vectors, the two kinds of queries, and queries near vectors for the choice of nprobe."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((SUBSPACE, DIM), np.float32)
    centres = rng.standard_normal((max(size // PER_CENTRE, 1), SUBSPACE), np.float32)

    def draw(count: int) -> Rows:
        around = centres[rng.integers(len(centres), size=count)]
        around += SPREAD * rng.standard_normal((count, SUBSPACE), np.float32)
        return l2_normalize(around @ directions + rng.standard_normal((count, DIM), np.float32))

    vectors = EmbeddingFile(DIM, folder)
    for start in range(0, size, BLOCK):
        vectors.append(draw(min(BLOCK, size - start)))
    near = vectors[rng.integers(size, size=QUERIES + TUNING)]
    near = l2_normalize(near + 0.03 * rng.standard_normal(near.shape, np.float32))
    return vectors, (near[:QUERIES], draw(QUERIES)), near[QUERIES:]


def _exact(vectors: EmbeddingFile, queries: Rows) -> NDArray[np.int64]:
    """(Q, RECALL_K) rows of the nearest vectors."""
    nearest = faiss.ResultHeap(len(queries), RECALL_K, keep_max=True)
    for start, block in blocks(vectors):
        similarities, rows = faiss.knn(queries, block, RECALL_K, faiss.METRIC_INNER_PRODUCT)
        nearest.add_result(similarities, rows + start)
    nearest.finalize()
    return np.asarray(nearest.I, np.int64)


def _single(index: EmbeddingIndex, query: Rows) -> tuple[float, float, NDArray[np.int64]]:
    """Seconds, seconds of processor time, and rows."""
    wall, cpu = time.perf_counter(), time.thread_time()
    rows = index.search(query, RECALL_K)[1][0]
    return time.perf_counter() - wall, time.thread_time() - cpu, rows


def _forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    PARTS: dict[str, Callable[[], None]] = {
        "build": lambda: run_build(Path(sys.argv[2]), int(sys.argv[3])),
        "search": lambda: run_search(Path(sys.argv[2])),
    }
    PARTS.get(sys.argv[1], lambda: measure(Path(sys.argv[1]), int(sys.argv[2])))()
