"""The order of the training samples: which of them each batch takes, from seed and step, without reading any."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LANES = 64  # at most; a number of its own, so that the batches do not depend on the number of processes


class Places(NamedTuple):
    """Where the B samples of a batch are."""

    epoch: int
    image_index: NDArray[np.int64]  # (B,) positions in the manifest
    shards: NDArray[np.int64]  # (B,) numbers of shards
    rows: NDArray[np.int64]  # (B,) numbers of the samples in their shards


class SampleOrder:
    """The order of the samples, epoch after epoch.

    An epoch's shards in random order, the samples of each in random order, are one sequence. It is cut into lanes,
    contiguous slices as long as there are samples for whole batches, and each batch takes the next few samples of every
    lane. So a batch mixes samples of as many shards as there are lanes, while a process, which has a contiguous part of
    each batch, has some lanes, and reads the shards of those.

    Args:
        shard_rows: for each shard, the positions of its samples in the manifest.
        batch_size: B, at most the number of samples; an epoch's last, short batch is left out.
        seed: of the run.
    """

    def __init__(self, shard_rows: Sequence[range], *, batch_size: int, seed: int) -> None:
        self.batch_size, self.seed = batch_size, seed
        self._first = np.array([rows.start for rows in shard_rows])
        self._sizes = np.array([len(rows) for rows in shard_rows])
        self._batches = int(self._sizes.sum()) // batch_size  # per epoch
        lanes = min(LANES, batch_size, len(shard_rows))
        edges = batch_size * np.arange(lanes + 1) // lanes  # positions in a batch at which lanes begin
        self._lane_start = np.repeat(edges[:-1], np.diff(edges))  # (B,) of the lane of each position
        self._lane_width = np.repeat(np.diff(edges), np.diff(edges))  # (B,)
        self._shard_order = lru_cache(maxsize=2)(self._draw_shard_order)
        self._row_order = lru_cache(maxsize=4 * LANES)(self._draw_row_order)

    def batch(self, step: int) -> Places:
        """The samples of a batch, counted from the run's first."""
        epoch, number = divmod(step, self._batches)
        return self.find(epoch, self._numbers(epoch, number * self.batch_size, (number + 1) * self.batch_size))

    def _numbers(self, _epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        """Numbers of the samples that an epoch takes from the `start`-th to before the `stop`-th."""
        return np.arange(start, stop)

    def find(self, epoch: int, numbers: NDArray[np.int64]) -> Places:
        """Where samples are, by their numbers in the epoch: batch times B plus position in the batch."""
        batch, position = np.divmod(numbers, self.batch_size)
        start, width = self._lane_start[position], self._lane_width[position]
        sequence = self._batches * start + batch * width + position - start
        order, ends = self._shard_order(epoch)
        turn = np.searchsorted(ends, sequence, side="right")
        shards = order[turn]
        rows = sequence - (ends[turn] - self._sizes[shards])
        for shard in np.unique(shards):
            here = shards == shard
            rows[here] = self._row_order(epoch, int(shard))[rows[here]]
        return Places(epoch, self._first[shards] + rows, shards, rows)

    def _draw_shard_order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards in an epoch's order, and where each ends in the sequence."""
        order = np.random.default_rng((self.seed, 3, epoch)).permutation(len(self._sizes))
        return order, np.cumsum(self._sizes[order])

    def _draw_row_order(self, epoch: int, shard: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, 4, epoch, shard)).permutation(self._sizes[shard])
