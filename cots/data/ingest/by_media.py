"""Samples of a source ingested in memory, by kind of media."""

from collections.abc import Iterable

from cots.data.ingest.ingestor import Ingestor, Rejected
from cots.data.ingest.shard_writer import ingest
from cots.data.samples import Sample, StoredSample
from cots.directions import Media


def ingest_by_media(
    samples: Iterable[Sample], intake: Ingestor
) -> tuple[dict[Media, list[StoredSample]], list[Rejected]]:
    """Samples as a source names them, opened: the usable ones by kind of media, and those that cannot be used."""
    usable: dict[Media, list[StoredSample]] = {}
    refused: list[Rejected] = []
    for number, outcome in enumerate(ingest(samples, intake)):
        if isinstance(outcome, Rejected):
            refused.append(outcome)
        else:
            key = f"{number:09d}"
            stored = StoredSample(key=key, id=outcome.id, captions=outcome.captions, frames=outcome.frames)
            usable.setdefault(outcome.media, []).append(stored)
    return usable, refused
