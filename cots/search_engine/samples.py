"""Queries to begin with: captions of an index that it answers with their own item."""

from collections.abc import Iterator

import numpy as np

from cots.batching import batched
from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import Query

MAX_SAMPLES = 6
MAX_CANDIDATES = 360  # captions that are tried, `TRIED_AT_ONCE` at a time, until there are enough
TRIED_AT_ONCE = 60
MAX_SAMPLE_CHARS = 60


def sample_queries(search: SearchEngine, *, batch_size: int) -> list[str]:
    """Short captions of different items that the index answers with their own item, at most `MAX_SAMPLES`."""
    short = [text for text in search.captions.texts if len(text) <= MAX_SAMPLE_CHARS]
    tried = np.random.default_rng(0).permutation(len(short))[:MAX_CANDIDATES]
    samples: dict[int, str] = {}  # by item
    for chunk in batched((short[row] for row in tried), TRIED_AT_ONCE):
        for text, row in _answered(search, chunk, batch_size=batch_size):
            samples.setdefault(row, text)
        if len(samples) >= MAX_SAMPLES:
            break
    return list(samples.values())[:MAX_SAMPLES]


def _answered(search: SearchEngine, texts: list[str], *, batch_size: int) -> Iterator[tuple[str, int]]:
    """The texts whose first result is an item that they describe, with its row."""
    queries = [Query(text, 1) for text in texts]
    for query, text, results in zip(queries, texts, search(queries, batch_size=batch_size), strict=True):
        if results and text in results[0]["captions"] and search.fits(query, results) is not False:
            yield text, results[0]["row"]
