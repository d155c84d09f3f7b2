"""Writes shards: one series of them for each split and kind of media."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cots.data.ingest.block_files import FrameReader
from cots.data.ingest.ledger import read_ledger
from cots.data.manifest import LANGUAGES
from cots.data.samples import GALLERY, STORED_SPLITS, StoredSample, StoredSplit, sample_key
from cots.data.shards import shard_name, write_shard
from cots.data.store import keep_part, start_list
from cots.directions import MEDIA, Media
from cots.distributed import round_robin

SERIES = [(split, media) for split in STORED_SPLITS for media in MEDIA]


class Shard(NamedTuple):
    """A shard to write.

    Attributes:
        name: its path below the shard folder.
        series: number of its split and kind of media.
        numbers: of its samples in the series.
    """

    name: str
    series: int
    numbers: range


class ShardLayout:
    """Gives samples, in the order of the source, their keys and shards.

    Args:
        samples_per_shard: in a full shard.
    """

    def __init__(self, samples_per_shard: int) -> None:
        self._samples_per_shard = samples_per_shard
        self._counts = Counter[tuple[StoredSplit, Media]]()

    @property
    def num_samples(self) -> int:
        """Number of samples so far."""
        return self._counts.total()

    @property
    def num_in_gallery(self) -> int:
        """How many of them have no caption."""
        return sum(self._counts[GALLERY, media] for media in MEDIA)

    def add(self, split: StoredSplit, media: Media) -> dict[str, str]:
        """Key and shard of the next sample of a series. Samples sorted by key are in the order of the shards."""
        number = self._counts[split, media]
        self._counts[split, media] += 1
        key = sample_key(SERIES.index((split, media)), number)
        return {"key": key, "shard": shard_name(split, media, number // self._samples_per_shard)}

    def shards(self) -> Iterator[Shard]:
        """The shards of all samples so far."""
        size = self._samples_per_shard
        for series, (split, media) in enumerate(SERIES):
            count = self._counts[split, media]
            for start in range(0, count, size):
                numbers = range(start, min(start + size, count))
                yield Shard(shard_name(split, media, start // size), series, numbers)


def start_shards(path: Path, store: Path | None) -> None:
    """Begin the shard folder anew.

    Args:
        path: the folder; shards of an earlier run are removed.
        store: where shards are kept; None if in the folder.
    """
    for old_shard in path.glob("*/*.tar"):
        old_shard.unlink()
    start_list(path, store)


def write_own_shards(path: Path, layout: ShardLayout, *, ledger: Path, blocks: Path) -> None:
    """Write this rank's share of the shards, each from the rows of the ledger and the frames of blocks.

    Args:
        path: the shard folder.
        layout: of all samples.
        ledger: its file, complete.
        blocks: the folder of the blocks.
    """
    with read_ledger(ledger) as find:

        def read_samples(shard: Shard) -> Iterator[StoredSample]:
            with FrameReader(blocks) as frames:
                for number in shard.numbers:
                    key = sample_key(shard.series, number)
                    row, place = find(key)
                    yield StoredSample(
                        key=key,
                        id=row["id"],
                        captions=tuple(row["captions"]),
                        frames=frames.read(place),
                        languages=tuple(row[LANGUAGES] or ()),
                    )

        for shard in round_robin(layout.shards()):
            write_shard(path / shard.name, read_samples(shard))
            keep_part(path / shard.name)
