"""Sample queries: captions of an index that it answers with an item that they describe."""

from collections.abc import Iterator

import numpy as np

from cots.batching import batched
from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import Query

MAX_SAMPLES = 6
MAX_CANDIDATES = 360  # captions that are tried, in chunks, until there are enough
CHUNK = 60
MAX_SAMPLE_CHARS = 60


def sample_queries(search: SearchEngine, *, batch_size: int) -> list[str]:
    """At most `MAX_SAMPLES` short captions of different items, each answered with its own item."""
    short = [text for text in search.captions.texts if len(text) <= MAX_SAMPLE_CHARS]
    candidates = np.random.default_rng(0).permutation(len(short))[:MAX_CANDIDATES]
    samples: dict[int, str] = {}  # by item
    for chunk in batched((short[row] for row in candidates), CHUNK):
        for text, row in _select_answered(search, chunk, batch_size=batch_size):
            samples.setdefault(row, text)
        if len(samples) >= MAX_SAMPLES:
            break
    return list(samples.values())[:MAX_SAMPLES]


def _select_answered(search: SearchEngine, texts: list[str], *, batch_size: int) -> Iterator[tuple[str, int]]:
    """The texts whose first result is an item that they describe, each with that item's row."""
    queries = [Query(text, 1) for text in texts]
    for query, text, results in zip(queries, texts, search(queries, batch_size=batch_size), strict=True):
        if results and text in results[0]["captions"] and search.fits(query, results) is not False:
            yield text, results[0]["row"]
