"""Evaluates retrieval: ranks every query in both directions, and times encoding and search."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from cots.directions import DIRECTIONS, Media
from cots.errors import BadInput
from cots.evaluation.bootstrap import bootstrap
from cots.evaluation.by_language import language_metrics
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metric_table import RECALLS, chance_level, rsum, summarize
from cots.evaluation.metrics import RankedQueries, rank_queries, rank_queries_in_folds
from cots.evaluation.query_table import RIGHT_RANKS
from cots.index.embedding_index import EmbeddingIndex
from cots.rounding import rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalResult:
    """Retrieval in both directions.

    Attributes:
        directions: ranked queries of `i2t` and `t2i`, or of `v2t` and `t2v`.
        metrics: scores with their intervals and chance levels, JSON-serializable; docs/evaluation.md has the schema.
    """

    directions: dict[str, RankedQueries]
    metrics: dict[str, Any]


def evaluate_retrieval(
    embedded: EmbeddedSplit, *, media: Media, folds: int, resamples: int, seed: int
) -> RetrievalResult:
    """Rank all texts for every item and all items for every text, and score both directions.

    Args:
        embedded: items and texts.
        media: of the items; it decides the names of the directions.
        folds: number of folds of consecutive items whose mean scores are given beside those of the whole set; 1: none.
        resamples: draws of the bootstrap behind the 95 % intervals.
        seed: of these draws.

    Raises:
        BadInput: fewer items than folds.
        ValueError: an embedding is not finite.
    """
    if folds > len(embedded.ids):
        raise BadInput(
            f"{folds} folds of {len(embedded.ids)} items: set evaluate.folds or --folds to fewer, 1 for none"
        )
    embeddings, names = (embedded.items, embedded.texts, embedded.text_to_item), DIRECTIONS[media]
    directions = dict(zip(names, rank_queries(*embeddings), strict=True))
    metrics = _compute_metrics([directions], resamples, seed)
    if folds > 1:
        by_fold = [dict(zip(names, ranked, strict=True)) for ranked in rank_queries_in_folds(*embeddings, folds)]
        metrics["folds"] = {"number": folds} | _compute_metrics(by_fold, resamples, seed)
    metrics |= language_metrics(
        embedded, lambda ranked: _compute_metrics([dict(zip(names, ranked, strict=True))], resamples, seed)
    )
    return RetrievalResult(directions=directions, metrics=rounded(metrics | {"speed": _speed(embedded)}))


def query_rows(embedded: EmbeddedSplit, result: RetrievalResult) -> list[dict[str, Any]]:
    """Rows of the query table (`cots.evaluation.query_table`).

    Returns:
        One row per query: direction, query (the item's id, or id#number of the caption), item, caption (its number,
        None if the item is the query), rank, relevant, candidates, average_precision, right_ranks.
    """
    caption_offsets = np.searchsorted(embedded.text_to_item, embedded.text_to_item)  # (M,) first text of the same item
    caption_numbers = (np.arange(len(embedded.text_to_item)) - caption_offsets).tolist()
    rows = []
    for name, captions in zip(result.directions, ([None] * len(embedded.ids), caption_numbers), strict=True):
        queries = result.directions[name]
        for item, caption, columns in zip(queries.query_to_item.tolist(), captions, _columns(queries), strict=True):
            id_ = embedded.ids[item]
            query = {"query": id_ if caption is None else f"{id_}#{caption}", "item": id_, "caption": caption}
            rows.append({"direction": name, **query, **columns})
    return rows


def _columns(queries: RankedQueries) -> Iterator[dict[str, Any]]:
    """For each query the columns of its row that hold numbers."""
    assert queries.right_ranks is not None
    right_ranks = np.split(queries.right_ranks, np.cumsum(queries.relevant)[:-1])
    columns = queries.ranks.tolist(), queries.relevant.tolist(), queries.average_precision.tolist(), right_ranks
    for rank, relevant, precision, ranks in zip(*columns, strict=True):
        numbers = {"rank": rank, "relevant": relevant, "candidates": queries.candidates}
        yield numbers | {"average_precision": precision, RIGHT_RANKS: ranks.tolist()}


def _compute_metrics(folds: Sequence[Mapping[str, RankedQueries]], resamples: int, seed: int) -> dict[str, Any]:
    """Scores, chance levels and intervals of one set of items, or their means over several folds."""
    by_chance = {name: _mean([chance_level(fold[name]) for fold in folds]) for name in folds[0]}
    to_texts, to_items = zip(*(fold.values() for fold in folds), strict=True)
    return {
        **{name: _mean([summarize(fold[name]) for fold in folds]) for name in folds[0]},
        "rsum": fmean(map(rsum, folds)),
        "chance": by_chance | {"rsum": sum(level[recall.name] for level in by_chance.values() for recall in RECALLS)},
        "interval": bootstrap(folds, resamples=resamples, seed=seed),
        "queries": {
            "items": round(fmean(len(queries.ranks) for queries in to_texts)),
            "texts": round(fmean(len(queries.ranks) for queries in to_items)),
        },
    }


def _mean(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: fmean(by_name[name] for by_name in scores) for name in scores[0]}


def _speed(embedded: EmbeddedSplit) -> dict[str, float]:
    """Encoding rates, and the time of an exact search for the ten nearest items of a text."""
    index = EmbeddingIndex.build(embedded.items, "Flat")
    start = time.perf_counter()
    index.search(embedded.texts, min(10, len(index)))
    seconds = time.perf_counter() - start
    return {
        "items_per_second": len(embedded.ids) / embedded.item_seconds,
        "texts_per_second": len(embedded.captions) / embedded.text_seconds,
        "search_ms": 1000 * seconds / len(embedded.captions),
    }
