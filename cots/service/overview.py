"""Describes an index to clients: numbers of items, columns to filter by, and sample queries."""

from typing import Any

from cots.search_engine.engine import SearchEngine
from cots.search_engine.samples import sample_queries
from cots.service.schemas import MAX_CHARS

MAX_VALUES = 50  # of a column


def build_overview(search: SearchEngine, *, batch_size: int) -> dict[str, Any]:
    """The fields of `schemas.Overview`, without the versions.

    Args:
        search: the loaded index.
        batch_size: texts encoded together.
    """
    media = search.items["media"].value_counts()
    counts = search.filters.count_values(MAX_VALUES)
    return {
        "images": int(media.get("image", 0)),
        "videos": int(media.get("video", 0)),
        "captions": len(search.captions.texts),
        "columns": {
            name: [{"value": value, "items": number} for value, number in values if len(value) <= MAX_CHARS]
            for name, values in counts.items()
        },
        "samples": sample_queries(search, batch_size=batch_size),
    }
