"""Copies of FAISS indices in GPU memory, if `faiss-gpu` is installed and sees a GPU."""

import functools
import logging
import threading
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)
MIN_BYTES = 32 << 20  # of vectors: the CPU reads a smaller index before the query has reached the GPU
MAX_K = 2048  # FAISS's limit on a GPU, for results per query and for probed lists
SCRATCH_BYTES = 256 << 20  # of GPU memory for all indices together; FAISS would take 1.5 GiB
SUPPORTED = {faiss.IndexFlat, faiss.IndexFlatIP, faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ}
_faiss: Any = faiss  # its type stubs know no GPU
_lock = threading.Lock()  # FAISS's scratch memory serves one search at a time


class GpuIndex:
    """A copy of an index on the first GPU, with the same vectors and settings; scores differ by rounding.

    Args:
        index: of FAISS, on the GPU.
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def of(cls, index: faiss.Index) -> Self | None:
        """A copy; None if FAISS sees no GPU, or the index is small or has a type or setting that FAISS lacks there."""
        index = faiss.downcast_index(index)
        if not faiss.get_num_gpus() or type(index) not in SUPPORTED:  # a subclass would lose what it adds
            return None
        if 4 * index.d * index.ntotal < MIN_BYTES or getattr(index, "nprobe", 1) > MAX_K:
            return None
        try:
            return cls(_faiss.index_cpu_to_gpu(_resources(), 0, index))
        except RuntimeError as error:  # its memory is full, or a graph assigns vectors to lists
            log.warning("the index stays off the GPU: %s", str(error).splitlines()[-1])
            return None

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Search like the original index, for k up to `MAX_K`, one search at a time."""
        with _lock:
            scores, rows = self._index.search(queries, k)
        return scores, rows


@functools.cache
def _resources() -> Any:  # noqa: ANN401  see `_faiss`
    """Resources that all indices on the GPU share."""
    resources = _faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH_BYTES)
    return resources
