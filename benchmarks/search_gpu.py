"""Search on a GPU by `faiss-gpu`, compared with FAISS on the processor, interleaved.

Vectors and queries are those of `benchmarks.search`. Exact search, and inverted lists with the same `nprobe`; batches
of 1,000 queries and of one. The processor uses all its threads.
"""

import statistics
import sys
from functools import partial

import faiss

from benchmarks._rounds import Call, interleave, times_faster
from benchmarks._vectors import DIM, Rows, gallery, recall
from cots.index import gpu
from cots.index.embedding_index import EmbeddingIndex

K, QUERIES = 10, 1_000
NPROBE = 16


def main(sizes: tuple[int, ...] = (20_000, 100_000, 1_000_000), rounds: int = 7) -> None:
    """Print a table for each number of vectors."""
    if not faiss.get_num_gpus():
        sys.exit("error: FAISS sees no GPU here: install the extra gpu, on a machine that has one")
    gpu.LEAST_BYTES = 0  # to see from which size on it pays
    for size in sizes:
        vectors, queries = gallery(size, QUERIES)
        print(f"{size:,} vectors of {DIM}, {size * DIM * 4 / 2**20:,.0f} MiB, {faiss.omp_get_max_threads()} threads")
        for kind in ("Flat", f"IVF{max(64, size // 1000)},SQfp16"):
            table(EmbeddingIndex.build(vectors, kind), kind, queries, rounds=rounds)


def table(index: EmbeddingIndex, kind: str, queries: Rows, *, rounds: int) -> None:
    """Print queries per second of both, for batches and single queries, and the fraction of equal rows."""
    if kind != "Flat":
        index.set(f"nprobe={NPROBE}")
    cpu_index = faiss.downcast_index(index._index)
    assert index._gpu is not None, f"{kind} stays on the processor"
    same = recall(index.search(queries, K)[1], cpu_index.search(queries, K)[1])
    for batch in (queries, queries[:1]):
        calls: dict[str, Call] = {
            "processor": partial(cpu_index.search, batch, K),
            "GPU": partial(index.search, batch, K),
        }
        seconds = interleave(calls, rounds=rounds, settling=1)
        rates = {name: len(batch) / statistics.median(times) for name, times in seconds.items()}
        ratio = times_faster(seconds, than="processor")["GPU"]
        print(
            f"  {kind:<16} {len(batch):5} at once: processor {rates['processor']:9,.0f} queries/s, "
            f"GPU {rates['GPU']:11,.0f}, x{ratio:.2f}; {same:.4f} of the rows the same",
            flush=True,
        )


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or (20_000, 100_000, 1_000_000))
