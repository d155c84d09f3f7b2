"""Samples of shards in a seeded order, in batches, prepared ahead."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import webdataset as wds

SHUFFLE_BUFFER = 5000  # undecoded samples that are mixed with each other
S = TypeVar("S")
T = TypeVar("T")


def shuffled(shard: Callable[[int], Iterator[T]], num_shards: int, *, seed: int, epoch: int) -> Iterator[T]:
    """The items of all shards, shards permuted and items mixed within a buffer; the same seed gives the same order."""
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(num_shards)
    mixed = wds.detshuffle(SHUFFLE_BUFFER, SHUFFLE_BUFFER, seed=int(rng.integers(2**31)))
    yield from mixed.run(item for number in order for item in shard(int(number)))


def endless(epoch: Callable[[int], Iterator[T]], *, num_samples: int, batch_size: int, start: int) -> Iterator[list[T]]:
    """Batches of items, epoch after epoch, from batch number `start` on; an epoch's last, short batch is left out."""
    per_epoch = num_samples // batch_size
    number, done = divmod(start, per_epoch)
    while True:
        items = islice(epoch(number), done * batch_size, per_epoch * batch_size)
        while chosen := list(islice(items, batch_size)):
            yield chosen
        number, done = number + 1, 0


def prefetch(items: Iterator[S], make: Callable[[S], T], *, threads: int) -> Iterator[T]:
    """What is made of each item, in order, while its predecessors are in use.

    Args:
        items: without end; one thread draws them, one after another.
        make: called in threads, of several items at once.
        threads: that make, and how many are made ahead.
    """
    with ThreadPoolExecutor(max_workers=1) as drawing, ThreadPoolExecutor(max_workers=threads) as making:

        def order() -> Future[T]:
            item = drawing.submit(next, items)
            return making.submit(lambda: make(item.result()))

        coming = deque(order() for _ in range(threads))
        while True:
            made = coming.popleft().result()
            coming.append(order())
            yield made
