"""Number of threads that decode images."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from cots.container_limits import available_cores, available_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import torch

S = TypeVar("S")
T = TypeVar("T")

MAX_DECODE_THREADS = 8  # they compete with the training thread for the GIL
ITEMS_PER_THREAD = 2  # in memory at a time, whole files among them
BYTES_PER_PIXEL = 16  # at the peak of decoding an untrusted image, measured; most of all a WebP with transparency


def num_decode_threads(device: torch.device) -> int:
    """How many threads decode stored images: one if the model is on the CPU, else this process's share of the cores.

    Source: docs/performance.md, "Loading".
    """
    if device.type == "cpu":
        return 1
    return max(1, min(MAX_DECODE_THREADS, available_cores() // local_world_size()))


def num_untrusted_threads(max_pixels: int) -> int:
    """How many threads decode untrusted images: one per core, but no more than half of the memory is enough for.

    Both are shared with the other processes of this run on this machine.

    Args:
        max_pixels: of an image; all threads may get one of this size at a time.
    """
    fitting = available_memory() // 2 // (BYTES_PER_PIXEL * max_pixels)
    return max(1, min(available_cores(), fitting) // local_world_size())


def decode_in_threads(items: Iterable[S], decode: Callable[[S], T], *, max_pixels: int) -> Iterator[T]:
    """Yield `decode(item)` of each item, in order; a few are decoded ahead.

    Args:
        items: drawn as they are needed; decode: called for several at once.
        max_pixels: of an image; see `num_untrusted_threads`.
    """
    threads = num_untrusted_threads(max_pixels)
    pending = deque[Future[T]]()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            pending.append(pool.submit(decode, item))
            if len(pending) == ITEMS_PER_THREAD * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def local_world_size() -> int:
    """How many processes of this run are on this machine, this one included."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
