"""Samples of any source into shards, a manifest and a list of rejects."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from cots.data.ingest.ingestor import IngestedSample, Rejected, rejected
from cots.data.samples import SPLITS, Sample, Split, StoredSample
from cots.data.shards import shard_name, write_shard
from cots.directions import MEDIA, Media

PARALLEL = 256  # samples that are opened at a time


class ShardWriter:
    """Shards that fill as samples come: one series for each split and media.

    Args:
        path: the folder; shards of an earlier run are removed.
        samples_per_shard: of a full one.
    """

    def __init__(self, path: Path, *, samples_per_shard: int) -> None:
        self._path = path
        self._samples_per_shard = samples_per_shard
        self._waiting: dict[tuple[Split, Media], list[StoredSample]] = {(s, m): [] for s in SPLITS for m in MEDIA}
        self._taken = Counter[tuple[Split, Media]]()
        for stale in path.glob("*/*.tar"):
            stale.unlink()

    def add(self, taken: IngestedSample) -> dict[str, object]:
        """Put the sample into its shard.

        Returns:
            Its row of the manifest. Sorted by key, rows are in the order in which the shards hold the samples.
        """
        series = (taken.split, taken.media)
        number = self._taken[series]
        self._taken[series] += 1
        key = f"{list(self._waiting).index(series)}{number:08d}"
        waiting = self._waiting[series]
        waiting.append(StoredSample(key=key, id=taken.id, captions=taken.captions, frames=taken.frames))
        shard = shard_name(*series, number // self._samples_per_shard)
        if len(waiting) == self._samples_per_shard:
            self._write(series)
        return _row(taken, key=key, shard=shard)

    def close(self) -> None:
        """Write the shards that are not full."""
        for series, waiting in self._waiting.items():
            if waiting:
                self._write(series)

    def _write(self, series: tuple[Split, Media]) -> None:
        number = (self._taken[series] - 1) // self._samples_per_shard
        write_shard(self._path / shard_name(*series, number), self._waiting[series])
        self._waiting[series] = []


def ingest(
    samples: Iterable[Sample], ingestor: Callable[[Sample], IngestedSample | Rejected]
) -> Iterator[IngestedSample | Rejected]:
    """Open samples side by side and pass them on in their order; of usable ones with the same id, only the first."""
    seen = set[str]()
    with ThreadPoolExecutor() as pool:
        for some in _portions(samples):
            for sample, outcome in zip(some, pool.map(ingestor, some), strict=True):
                if isinstance(outcome, IngestedSample) and sample.id in seen:
                    yield rejected(sample, "duplicate id", "an earlier sample has it")
                    continue
                if isinstance(outcome, IngestedSample):
                    seen.add(sample.id)
                yield outcome


def _portions(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while some := list(islice(iterator, PARALLEL)):
        yield some


def _row(taken: IngestedSample, *, key: str, shard: str) -> dict[str, object]:
    return {
        "key": key,
        "id": taken.id,
        "split": taken.split,
        "media": taken.media,
        "shard": shard,
        "captions": taken.captions,
        "wrong": taken.is_mismatched,
        "frames": len(taken.frames),
        "width": taken.width,
        "height": taken.height,
        "bytes": sum(map(len, taken.frames)),
        "pixel_hash": taken.pixel_hash,
        "dhash": taken.dhash,
        "origin": taken.origin,
    }
