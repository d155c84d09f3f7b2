"""Random crops of a split's frames, for training the dVAE."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cots.data.random_crop import crop, draw_view
from cots.data.samples import StoredSample
from cots.data.shards import read_shard
from cots.data.streaming import endless_batches, prefetch, shuffle_shards


@dataclass(frozen=True, kw_only=True)
class RandomCrops:
    """An endless stream of batches of crops; each batch is a fixed function of seed and step.

    Attributes:
        shards: tar files.
        num_samples: in all shards, at least `batch_size`.
        batch_size: crops per batch.
        size: side of the crops, pixels.
        scale: range of a crop's area, as fractions of the frame's.
        ratio: range of a crop's width over its height.
        seed: of the order, frames and boxes.
        threads: how many decode images, each for a batch of its own.
    """

    shards: tuple[Path, ...]
    num_samples: int
    batch_size: int
    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    seed: int
    threads: int

    def iter_from(self, step: int) -> Iterator[NDArray[np.uint8]]:
        """(B, H, W, 3) pixels, from batch `step` on."""
        batches = endless_batches(
            self._epoch, num_samples=self.num_samples, batch_size=self.batch_size, first_batch=step
        )
        yield from prefetch(enumerate(batches, start=step), self._crop, threads=self.threads)

    def _epoch(self, epoch: int) -> Iterator[StoredSample]:
        yield from shuffle_shards(
            lambda shard: read_shard(self.shards[shard]), len(self.shards), seed=self.seed, epoch=epoch
        )

    def _crop(self, batch: tuple[int, list[StoredSample]]) -> NDArray[np.uint8]:
        step, samples = batch
        rng = np.random.default_rng((self.seed, 2, step))
        return np.stack(
            [crop(*draw_view(rng, sample, scale=self.scale, ratio=self.ratio)[1:], self.size) for sample in samples]
        )
