"""Writes ingested samples to shards."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cots.data.ingest.ingestor import IngestedSample, Ingestor, Rejected, reject
from cots.data.manifest import LANGUAGES, MADE
from cots.data.samples import GALLERY, STORED_SPLITS, Sample, StoredSample, StoredSplit, sample_key
from cots.data.shards import shard_name, write_shard
from cots.data.store import finish_list, keep_part, start_list
from cots.decode_threads import decode_in_threads
from cots.directions import MEDIA, Media

Series = tuple[StoredSplit, Media]


class ShardWriter:
    """Fills shards as samples come: one series of shards for each split and kind of media.

    Args:
        path: the folder; shards of an earlier run are removed.
        samples_per_shard: in a full shard.
        store: where shards are kept; None if in the folder.
    """

    def __init__(self, path: Path, *, samples_per_shard: int, store: Path | None = None) -> None:
        self._path = path
        self._samples_per_shard = samples_per_shard
        self._pending: dict[Series, list[StoredSample]] = {
            (split, media): [] for split in STORED_SPLITS for media in MEDIA
        }
        self._counts = Counter[Series]()
        for old_shard in path.glob("*/*.tar"):
            old_shard.unlink()
        start_list(path, store)

    @property
    def num_samples(self) -> int:
        """Number of samples so far."""
        return self._counts.total()

    @property
    def num_in_gallery(self) -> int:
        """How many of them have no caption."""
        return sum(self._counts[GALLERY, media] for media in MEDIA)

    def add(self, sample: IngestedSample) -> dict[str, object]:
        """Put a sample into its shard.

        Returns:
            Its row of the manifest. Rows sorted by key are in the order of the samples in the shards.
        """
        series = (sample.split, sample.media)
        number = self._counts[series]
        self._counts[series] += 1
        key = sample_key(list(self._pending).index(series), number)
        pending = self._pending[series]
        pending.append(sample.to_stored(key))
        shard = shard_name(*series, number // self._samples_per_shard)
        if len(pending) == self._samples_per_shard:
            self._write(series)
        return _manifest_row(sample, key=key, shard=shard)

    def close(self) -> None:
        """Write the shards that are not full."""
        for series, pending in self._pending.items():
            if pending:
                self._write(series)
        finish_list(self._path)

    def _write(self, series: Series) -> None:
        number = (self._counts[series] - 1) // self._samples_per_shard
        shard = self._path / shard_name(*series, number)
        write_shard(shard, self._pending[series])
        keep_part(shard)
        self._pending[series] = []


def ingest(
    samples: Iterable[Sample], ingestor: Ingestor, add_id: Callable[[str], bool] | None = None
) -> Iterator[IngestedSample | Rejected]:
    """Open samples in threads and yield the outcomes in order; later usable samples with the same id are rejected.

    Args:
        samples: of a source; ingestor: opens them.
        add_id: remembers an id and says whether it is new; by default in memory.
    """
    add_id = add_id or _remember_in_memory()
    outcomes = decode_in_threads(samples, lambda sample: (sample, ingestor(sample)), max_pixels=ingestor.max_pixels)
    for sample, outcome in outcomes:
        if isinstance(outcome, IngestedSample) and not add_id(sample.id):
            yield reject(sample, "duplicate id", "an earlier sample has it")
        else:
            yield outcome


def _remember_in_memory() -> Callable[[str], bool]:
    seen = set[str]()

    def add_id(name: str) -> bool:
        is_new = name not in seen
        seen.add(name)
        return is_new

    return add_id


def _manifest_row(sample: IngestedSample, *, key: str, shard: str) -> dict[str, object]:
    return {
        "key": key,
        "id": sample.id,
        "split": sample.split,
        "media": sample.media,
        "shard": shard,
        "captions": sample.captions,
        "wrong": sample.is_mismatched,
        "frames": len(sample.frames),
        "width": sample.width,
        "height": sample.height,
        "bytes": sum(map(len, sample.frames)),
        "pixel_hash": sample.pixel_hash,
        "dhash": sample.dhash,
        "origin": sample.origin,
        "metadata": sample.metadata,
        LANGUAGES: sample.languages or None,
        MADE: sample.is_made or None,
    }
