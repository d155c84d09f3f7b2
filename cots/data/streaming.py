"""Batches made ahead in threads."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def prefetch(items: Iterator[S], make: Callable[[S], T], *, threads: int) -> Iterator[T]:
    """Yield `make(item)` of each item, in order, computed ahead in threads.

    Args:
        items: without end; one thread draws them one after another.
        make: called for several items at once.
        threads: how many call `make`, and how many results are computed ahead.
    """
    with ThreadPoolExecutor(max_workers=1) as reader, ThreadPoolExecutor(max_workers=threads) as makers:

        def submit() -> Future[T]:
            item = reader.submit(next, items)
            return makers.submit(lambda: make(item.result()))

        pending = deque(submit() for _ in range(threads))
        while True:
            result = pending.popleft().result()
            pending.append(submit())
            yield result
