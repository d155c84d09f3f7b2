"""Samples of shards as an endless, seeded, prefetched stream of batches."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import webdataset as wds

from cots.batching import batched

SHUFFLE_BUFFER = 5000  # undecoded samples that are mixed with each other
S = TypeVar("S")
T = TypeVar("T")


def shuffle_shards(read: Callable[[int], Iterator[T]], num_shards: int, *, seed: int, epoch: int) -> Iterator[T]:
    """Yield the items of all shards, with shards permuted and items mixed in a buffer; fixed by seed and epoch.

    Args:
        read: gives the items of shard number i.
        num_shards: how many shards there are.
        seed: of the run.
        epoch: each epoch has an order of its own.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(num_shards)
    shuffle = wds.detshuffle(SHUFFLE_BUFFER, SHUFFLE_BUFFER, seed=int(rng.integers(2**31)))
    yield from shuffle.run(item for shard in order for item in read(int(shard)))


def endless_batches(
    read_epoch: Callable[[int], Iterator[T]], *, num_samples: int, batch_size: int, first_batch: int
) -> Iterator[list[T]]:
    """Yield batches, epoch after epoch; an epoch's last, short batch is left out.

    Args:
        read_epoch: gives the items of epoch number i.
        num_samples: items per epoch.
        batch_size: items per batch.
        first_batch: number of the batch to start from, counted from the run's first.
    """
    batches_per_epoch = num_samples // batch_size
    epoch, skipped = divmod(first_batch, batches_per_epoch)
    while True:
        items = islice(read_epoch(epoch), skipped * batch_size, batches_per_epoch * batch_size)
        yield from batched(items, batch_size)
        epoch, skipped = epoch + 1, 0


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
