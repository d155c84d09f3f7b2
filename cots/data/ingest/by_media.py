"""Ingest the samples of a source into memory, by kind of media, to measure a model on them."""

from collections.abc import Iterable

from cots.data.ingest.ingestor import IngestedSample, Ingestor, Rejected, ingest
from cots.data.samples import Sample, StoredSample
from cots.directions import Media


def ingest_by_media(
    samples: Iterable[Sample], ingestor: Ingestor
) -> tuple[dict[Media, list[StoredSample]], list[Rejected]]:
    """Open samples: those with captions by kind of media, and the rejected ones, to which those without belong."""
    usable: dict[Media, list[StoredSample]] = {}
    rejected: list[Rejected] = []
    for number, outcome in enumerate(ingest(samples, ingestor)):
        if isinstance(outcome, Rejected):
            rejected.append(outcome)
        elif not outcome.captions:
            rejected.append(_without_caption(outcome))
        else:
            usable.setdefault(outcome.media, []).append(outcome.to_stored(f"{number:09d}"))
    return usable, rejected


def _without_caption(sample: IngestedSample) -> Rejected:
    detail = "there is nothing to measure it by"
    return Rejected(id=sample.id, split=sample.split, origin=sample.origin, reason="no caption", detail=detail)
