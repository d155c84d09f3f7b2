"""Retrieval by slices: the same ranks among all candidates, for some of the queries at a time.

Texts are sliced by their number of words, into thirds; texts and items by the values of the source's columns.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cots.evaluation.bootstrap import bootstrap
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metric_table import RECALLS
from cots.evaluation.metrics import RankedQueries

LENGTH = "caption length"  # what slices of texts are called beside those of columns

SLICE_COLUMNS = ("direction", "by", "value", "queries", "metric", "score", "low", "high", "chance")  # of `recall_rows`

Mask = NDArray[np.bool_]


class Slice(NamedTuple):
    """Some queries of one direction.

    Attributes:
        direction: such as `t2i`.
        by: `LENGTH`, or the name of a column.
        value: what these queries have in common.
        queries: ranked among all candidates.
    """

    direction: str
    by: str
    value: str
    queries: RankedQueries


def slice_queries(
    embedded: EmbeddedSplit,
    directions: Mapping[str, RankedQueries],
    columns: Mapping[str, Sequence[str | None]],
    *,
    max_values: int,
) -> Iterator[Slice]:
    """The slices of both directions; empty ones, and a single one that holds all texts, are left out.

    Args:
        embedded: N items with their texts.
        directions: item to text, then text to item.
        columns: value of each item by name of the column, None if it has none.
        max_values: of a column, the most frequent ones.
    """
    to_items, by_text = list(directions.items())[1]
    for value, chosen in _slices_by_length(embedded.captions):
        yield Slice(to_items, LENGTH, value, by_text.select(chosen))
    for name, values in columns.items():
        frequent = Counter(value for value in values if value is not None).most_common(max_values)
        of_items = np.array(values, object)
        for direction, queries in directions.items():
            of_queries = of_items[queries.query_to_item]
            for value, _ in frequent:
                yield Slice(direction, name, value, queries.select(of_queries == value))


def recall_rows(slices: Iterable[Slice], *, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row of `SLICE_COLUMNS` for each slice and recall: per cent, with the 95 % interval.

    Args:
        slices: of one model.
        resamples: draws of the bootstrap, of the slice's items.
        seed: of these draws.
    """
    for direction, by, value, queries in slices:
        intervals = bootstrap([{direction: queries}], resamples=resamples, seed=seed)[direction]
        for metric in RECALLS:
            score, chance = metric.score(queries), metric.scale * metric.chance(queries)
            low, high = (intervals[metric.name][end] for end in ("low", "high"))
            row = (direction, by, value, len(queries.ranks), metric.name, score, low, high, chance)
            yield dict(zip(SLICE_COLUMNS, row, strict=True))


def _slices_by_length(captions: Sequence[str]) -> list[tuple[str, Mask]]:
    """Thirds of the texts by their number of words."""
    words = np.array([len(caption.split()) for caption in captions])
    low, high = np.quantile(words, [1 / 3, 2 / 3], method="inverted_cdf").tolist()
    thirds = [
        (f"short, to {low} words", words <= low),
        (f"medium, {low + 1} to {high} words", (words > low) & (words <= high)),
        (f"long, from {high + 1} words", words > high),
    ]
    present = [(value, chosen) for value, chosen in thirds if chosen.any()]
    return present if len(present) > 1 else []
