"""What `prepare` does, in the plainest way: one sample after another, all of them in memory."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from cots.data.changes import added_samples, images_folder, read_changes, require_images, with_changes
from cots.data.ingest.ingestor import IngestedSample
from cots.data.samples import Sample, StoredSample, sample_key
from cots.data.shards import shard_name, write_shard

SERIES = [(split, media) for split in ("train", "val", "test", "gallery") for media in ("image", "video")]


def store(samples: Iterable[IngestedSample], shards: Path, *, samples_per_shard: int) -> list[dict[str, object]]:
    """Write the shards; the rows of the manifest, sorted by key."""
    by_series = defaultdict[tuple[str, str], list[IngestedSample]](list)
    for sample in samples:
        by_series[sample.split, sample.media].append(sample)
    rows: list[dict[str, object]] = []
    for number, series in enumerate(SERIES):
        in_shards = defaultdict[str, list[StoredSample]](list)
        for place, sample in enumerate(by_series[series]):
            key, shard = sample_key(number, place), shard_name(*series, place // samples_per_shard)
            in_shards[shard].append(sample.to_stored(key))
            rows.append(manifest_row(sample) | {"key": key, "shard": shard})
        for shard, stored in in_shards.items():
            write_shard(shards / shard, stored)
    return rows


def manifest_row(sample: IngestedSample) -> dict[str, object]:
    """What the manifest says of a sample, but for key and shard."""
    fields = ("id", "split", "media", "captions", "width", "height", "pixel_hash", "dhash", "origin", "metadata")
    return {field: getattr(sample, field) for field in fields} | {
        "wrong": sample.is_mismatched,
        "frames": len(sample.frames),
        "bytes": sum(len(frame) for frame in sample.frames),
        "languages": sample.languages or None,
        "made": sample.is_made or None,
    }


def apply_changes(samples: Iterable[Sample], path: Path) -> list[Sample]:
    """The samples as the changes of a list have made them, and then those that it adds."""
    changes, folder = read_changes(path), images_folder(path)
    require_images(changes, folder)
    outcome, as_it_was, seen = list[Sample](), False, set[str]()
    for sample, is_changed in with_changes(samples, changes, folder):
        if not as_it_was:
            outcome.append(sample)
            seen.add(sample.id)
        as_it_was = is_changed
    return outcome + list(added_samples([change for name, change in changes.items() if name not in seen], folder))
