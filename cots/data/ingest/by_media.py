"""Ingest the samples of a source into memory, by kind of media."""

from collections.abc import Iterable

from cots.data.ingest.ingestor import Ingestor, Rejected
from cots.data.ingest.shard_writer import ingest
from cots.data.samples import Sample, StoredSample
from cots.directions import Media


def ingest_by_media(
    samples: Iterable[Sample], ingestor: Ingestor
) -> tuple[dict[Media, list[StoredSample]], list[Rejected]]:
    """Open samples: the usable ones by kind of media, and the rejected ones."""
    usable: dict[Media, list[StoredSample]] = {}
    rejected: list[Rejected] = []
    for number, outcome in enumerate(ingest(samples, ingestor)):
        if isinstance(outcome, Rejected):
            rejected.append(outcome)
        else:
            key = f"{number:09d}"
            stored = StoredSample(key=key, id=outcome.id, captions=outcome.captions, frames=outcome.frames)
            usable.setdefault(outcome.media, []).append(stored)
    return usable, rejected
