"""The order of the training samples in which hard negatives meet in a batch."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cots.data.hard_negatives import followed_by_nearest
from cots.data.sample_order import SampleOrder

WINDOW = 5000  # samples that are reordered among each other


class HardNegativeOrder(SampleOrder):
    """An order in which samples that a model confuses follow each other, see `followed_by_nearest`.

    Args:
        shard_rows: for each shard, the positions of its samples in the manifest.
        batch_size: samples per batch.
        seed: of the run.
        keys: (N,) of the samples of the manifest.
        nearest: (N, k) keys of the hard negatives of each sample, nearest first.
        share: of the samples are followed by one of theirs.
    """

    def __init__(
        self,
        shard_rows: Sequence[range],
        *,
        batch_size: int,
        seed: int,
        keys: NDArray[np.int64],
        nearest: NDArray[np.int64],
        share: float,
    ) -> None:
        super().__init__(shard_rows, batch_size=batch_size, seed=seed)
        self._keys, self._nearest, self._share = keys, nearest, share
        self._window = lru_cache(maxsize=2)(self._reorder_window)

    def _numbers(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        windows = range(start // WINDOW, (stop - 1) // WINDOW + 1)
        numbers = np.concatenate([self._window(epoch, window) for window in windows])
        return numbers[start - windows.start * WINDOW :][: stop - start]

    def _reorder_window(self, epoch: int, window: int) -> NDArray[np.int64]:
        numbers = np.arange(window * WINDOW, min((window + 1) * WINDOW, self._batches * self.batch_size))
        image_index = self.find(epoch, numbers).image_index
        reordered = followed_by_nearest(
            zip(numbers.tolist(), image_index.tolist(), strict=True),
            lambda item: self._nearest[item[1]].tolist(),
            lambda item: int(self._keys[item[1]]),
            share=self._share,
            window=WINDOW,
            rng=np.random.default_rng((self.seed, 2, epoch, window)),
        )
        return np.array([number for number, _ in reordered])
