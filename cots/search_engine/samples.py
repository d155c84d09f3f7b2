"""Queries to begin with: captions of an index that it answers with their own item."""

import numpy as np

from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import Query

MAX_SAMPLES = 6
MAX_CANDIDATES = 60  # captions that are tried
MAX_SAMPLE_CHARS = 60


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
