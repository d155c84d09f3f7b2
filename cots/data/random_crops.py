"""Random crops of a split's frames, for training the dVAE."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cots.data.open_shards import OpenShards
from cots.data.random_crop import crop, draw_view
from cots.data.sample_order import SampleOrder
from cots.data.samples import StoredSample
from cots.data.shards import ShardReader
from cots.data.streaming import prefetch
from cots.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class RandomCrops:
    """An endless stream of batches of crops; each batch is a fixed function of seed and step.

    Attributes:
        shards: tar files.
        shard_rows: for each shard, the positions of its samples in the manifest.
        batch_size: crops per batch, at most the number of samples.
        size: side of the crops, pixels.
        scale: range of a crop's area, as fractions of the frame's.
        ratio: range of a crop's width over its height.
        seed: of the order, frames and boxes.
        threads: how many decode images, each for a batch of its own.
    """

    shards: tuple[Path, ...]
    shard_rows: tuple[range, ...]
    batch_size: int
    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    seed: int
    threads: int

    def iter_from(self, step: int, share: slice) -> Iterator[NDArray[np.uint8]]:
        """(R, H, W, 3) pixels, from batch `step` on: those at the positions `share` of each, no others are read."""
        yield from prefetch(self._read_from(step, share), self._crop, threads=self.threads)

    def _read_from(self, step: int, share: slice) -> Iterator[list[tuple[tuple[int, int], StoredSample]]]:
        """The samples of each batch, with step and position in the batch."""
        order = SampleOrder(self.shard_rows, batch_size=self.batch_size, seed=self.seed)
        opened = OpenShards(self._open)
        for number in count(step):
            places = order.batch(number)
            shards, rows = places.shards[share], places.rows[share]
            readers = opened.select(shards)
            samples = [readers[shard][row] for shard, row in zip(shards.tolist(), rows.tolist(), strict=True)]
            yield [
                ((number, position), sample)
                for position, sample in zip(range(self.batch_size)[share], samples, strict=True)
            ]

    def _open(self, shard: int) -> ShardReader:
        reader = ShardReader(self.shards[shard])
        if len(reader) != len(self.shard_rows[shard]):
            raise BadInput(
                f"{self.shards[shard]} has {len(reader)} samples, the manifest {len(self.shard_rows[shard])}: "
                "run `dvc repro --force prepare`"
            )
        return reader

    def _crop(self, samples: list[tuple[tuple[int, int], StoredSample]]) -> NDArray[np.uint8]:
        draw = partial(draw_view, scale=self.scale, ratio=self.ratio)
        views = [draw(np.random.default_rng((self.seed, 2, *place)), sample) for place, sample in samples]
        return np.stack([crop(frame, box, self.size) for _, frame, box in views])
