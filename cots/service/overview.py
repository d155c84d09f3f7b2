"""What an index holds, for the first page: numbers of items, columns to filter by, and queries to begin with."""

from typing import Any

import numpy as np

from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import Query

MAX_VALUES = 50  # of a column
MAX_SAMPLES = 6
MAX_CANDIDATES = 60  # captions that are tried
MAX_SAMPLE_CHARS = 60


def build_overview(search: SearchEngine, *, batch_size: int) -> dict[str, Any]:
    """The fields of `schemas.Overview` but for the versions.

    Args:
        search: encoders and index.
        batch_size: texts encoded together.
    """
    media = search.items["media"].value_counts()
    counts = search.filters.count_values(MAX_VALUES)
    return {
        "images": int(media.get("image", 0)),
        "videos": int(media.get("video", 0)),
        "captions": len(search.captions.texts),
        "columns": {
            name: [{"value": value, "items": number} for value, number in values] for name, values in counts.items()
        },
        "samples": sample_queries(search, batch_size=batch_size),
    }


def sample_queries(search: SearchEngine, *, batch_size: int) -> list[str]:
    """Short captions of different items that the index answers with their own item, at most `MAX_SAMPLES`."""
    short = [text for text in search.captions.texts if len(text) <= MAX_SAMPLE_CHARS]
    if not short:
        return []
    rows = np.unique(np.linspace(0, len(short) - 1, min(len(short), MAX_CANDIDATES), dtype=np.int64))
    queries = [Query(short[row], 1) for row in rows]
    samples: dict[int, str] = {}  # by item
    for query, results in zip(queries, search(queries, batch_size=batch_size), strict=True):
        right = bool(results) and query.content in results[0]["captions"] and search.fits(query, results) is not False
        if right and results[0]["row"] not in samples:
            samples[results[0]["row"]] = str(query.content)
    return list(samples.values())[:MAX_SAMPLES]
