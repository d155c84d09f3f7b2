"""FAISS on a GPU: a copy of an index in its memory, where `faiss-gpu` is installed and sees one."""

import functools
import logging
import threading
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)
LEAST_BYTES = 32 << 20  # of vectors: a smaller index is read sooner by the processor than it is sent
MOST = 2048  # rows that FAISS finds a query on a GPU, and lists that it reads
SCRATCH_BYTES = 256 << 20  # of the GPU's memory, for all indices together; FAISS would take 1.5 GiB
KINDS = {faiss.IndexFlat, faiss.IndexFlatIP, faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ}
_api: Any = faiss  # its type stubs know no GPU
_searching = threading.Lock()  # FAISS's scratch memory serves one search at a time


class GpuIndex:
    """The same vectors on the first GPU, found with the same settings; scores differ by rounding.

    Args:
        index: of FAISS, on the GPU.
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def of(cls, index: faiss.Index) -> Self | None:
        """A copy, or None: no GPU that FAISS sees, a small index, or a kind or settings that FAISS keeps off it."""
        index = faiss.downcast_index(index)
        if not faiss.get_num_gpus() or type(index) not in KINDS:  # what derives from these would lose what it adds
            return None
        if 4 * index.d * index.ntotal < LEAST_BYTES or getattr(index, "nprobe", 1) > MOST:
            return None
        try:
            return cls(_api.index_cpu_to_gpu(_resources(), 0, index))
        except RuntimeError as error:  # its memory is full, or the lists are found by a graph
            log.warning("the index stays off the GPU: %s", str(error).splitlines()[-1])
            return None

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As the index itself would, for k up to `MOST`; searches wait for each other."""
        with _searching:
            scores, rows = self._index.search(queries, k)
        return scores, rows


@functools.cache
def _resources() -> Any:  # noqa: ANN401  see `_api`
    """What all indices on the GPU share."""
    made = _api.StandardGpuResources()
    made.setTempMemory(SCRATCH_BYTES)
    return made
