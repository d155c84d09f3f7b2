"""Retrieval in each language alone, and of captions in one language by captions in another."""

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metric_table import chance_level, summarize
from cots.evaluation.metrics import RankedQueries, rank_across, rank_queries

Directions = tuple[RankedQueries, RankedQueries]


def language_metrics(
    embedded: EmbeddedSplit, compute_metrics: Callable[[Directions], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Scores by language and across languages; empty if the captions are known to be in fewer than two languages.

    Args:
        embedded: items and texts; texts of unknown language take no part.
        compute_metrics: scores of both directions, for each language's.

    Returns:
        {"languages": {"en": scores, ...}, "across_languages": {"en": {"zh": scores, ...}, ...}}. The former are of the
        items that have a caption in the language, against its captions. In the latter a caption in the first language
        is the query, and those of its item in the second one are right, among all captions in the second one.
    """
    tags = np.array(embedded.languages)
    names = [str(tag) for tag in np.unique(tags) if tag]
    if len(names) < 2:
        return {}
    rows = {name: np.flatnonzero(tags == name) for name in names}
    across: dict[str, dict[str, Any]] = {name: {} for name in names}
    for source, target in permutations(names, 2):
        if scores := _score_across(embedded, rows[source], rows[target]):
            across[source][target] = scores
    by_language = {name: compute_metrics(_rank_within(embedded, rows[name])) for name in names}
    return {"languages": by_language, "across_languages": across}


def across_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each pair of languages of a model's metrics, the query's first, with its scores; none without languages."""
    for source, targets in metrics.get("across_languages", {}).items():
        for target, scores in targets.items():
            yield source, target, scores


def _rank_within(embedded: EmbeddedSplit, rows: NDArray[np.int64]) -> Directions:
    """Both directions between the texts of some rows and the items that they describe."""
    items, text_to_item = np.unique(embedded.text_to_item[rows], return_inverse=True)
    return rank_queries(embedded.items[items], embedded.texts[rows], text_to_item)


def _score_across(
    embedded: EmbeddedSplit, source: NDArray[np.int64], target: NDArray[np.int64]
) -> dict[str, Any] | None:
    """Scores of texts in one language as queries for those in another; None if no item has texts in both."""
    source = source[np.isin(embedded.text_to_item[source], embedded.text_to_item[target])]
    if not len(source):
        return None
    queries = rank_across(
        embedded.texts[source], embedded.text_to_item[source], embedded.texts[target], embedded.text_to_item[target]
    )
    counts = {"queries": len(queries.ranks), "candidates": queries.candidates}
    return summarize(queries) | {"chance": chance_level(queries)} | counts
