"""Random crops of a split's frames, for the dVAE."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cots.data.random_crop import crop, draw_view
from cots.data.samples import StoredSample
from cots.data.shards import read_shard
from cots.data.streaming import endless, prefetch, shuffled


@dataclass(frozen=True, kw_only=True)
class RandomCrops:
    """Crops of a split's frames, without end, for the dVAE: a fixed function of seed and step.

    Attributes:
        shards: tar files.
        num_samples: in all shards, at least `batch`.
        batch: crops a batch.
        size: pixels along a side of the crops.
        scale: share of the picture's area; ratio: width over height.
        threads: that decode pictures, of several batches at once.
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
        chosen = endless(self._epoch, num_samples=self.num_samples, batch_size=self.batch_size, start=step)
        yield from prefetch(enumerate(chosen, start=step), self._pixels, threads=self.threads)

    def _epoch(self, epoch: int) -> Iterator[StoredSample]:
        yield from shuffled(lambda shard: read_shard(self.shards[shard]), len(self.shards), seed=self.seed, epoch=epoch)

    def _pixels(self, numbered: tuple[int, list[StoredSample]]) -> NDArray[np.uint8]:
        step, samples = numbered
        rng = np.random.default_rng((self.seed, 2, step))
        return np.stack(
            [crop(*draw_view(rng, sample, scale=self.scale, ratio=self.ratio)[1:], self.size) for sample in samples]
        )
