"""Retrieval measured: samples embedded once, every query ranked in both directions, encoding and search timed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from cots.directions import DIRECTIONS, Media
from cots.errors import BadInput
from cots.evaluation.bootstrap import bootstrap
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metric_table import chance_level, summarize
from cots.evaluation.metrics import RECALL_KS, RankedQueries, rank_queries, rank_queries_in_folds, rsum
from cots.index.embedding_index import EmbeddingIndex
from cots.rounding import rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalResult:
    """Retrieval in both directions.

    Attributes:
        directions: `i2t` and `t2i`, or `v2t` and `t2v`, with every query's rank.
        metrics: ready for JSON, with intervals and chance levels beside the scores; docs/evaluation.md has its schema.
    """

    directions: dict[str, RankedQueries]
    metrics: dict[str, Any]


def evaluate_retrieval(
    embedded: EmbeddedSplit, *, media: Media, folds: int, resamples: int, seed: int
) -> RetrievalResult:
    """Rank everything both ways.

    Args:
        embedded: what is retrieved from what.
        media: names the directions.
        folds: parts of consecutive items whose mean scores stand beside those of the whole set; 1 is the whole alone.
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
    spaces, names = (embedded.items, embedded.texts, embedded.text_to_item), DIRECTIONS[media]
    directions = dict(zip(names, rank_queries(*spaces), strict=True))
    metrics = _figures([directions], resamples, seed)
    if folds > 1:
        parts = [dict(zip(names, ways, strict=True)) for ways in rank_queries_in_folds(*spaces, folds)]
        metrics["folds"] = {"number": folds} | _figures(parts, resamples, seed)
    return RetrievalResult(directions=directions, metrics=rounded(metrics | {"speed": _speed(embedded)}))


def query_rows(embedded: EmbeddedSplit, measured: RetrievalResult) -> list[dict[str, Any]]:
    """One row a query, for tables and for the comparison of two models on the same queries.

    Returns:
        Rows of direction, query (unique in its direction: the item's id, or id#number of the caption), item,
        caption (its number, None where the item is the query), rank, relevant, candidates, average_precision.
    """
    first = np.searchsorted(embedded.text_to_item, embedded.text_to_item)  # (M,): number of the owner's first caption
    numbers = (np.arange(len(embedded.text_to_item)) - first).tolist()
    rows = []
    for way, captions in zip(measured.directions, ([None] * len(embedded.ids), numbers), strict=True):
        direction = measured.directions[way]
        columns = (direction.ranks.tolist(), direction.relevant.tolist(), direction.average_precision.tolist())
        for owner, caption, rank, relevant, precision in zip(
            direction.text_to_item.tolist(), captions, *columns, strict=True
        ):
            item = embedded.ids[owner]
            query = {"query": item if caption is None else f"{item}#{caption}", "item": item, "caption": caption}
            right = {"rank": rank, "relevant": relevant, "candidates": direction.candidates}
            rows.append({"direction": way, **query, **right, "average_precision": precision})
    return rows


def _figures(parts: Sequence[Mapping[str, RankedQueries]], resamples: int, seed: int) -> dict[str, Any]:
    """Scores, chance levels and intervals of one set of items, or their means over several."""
    by_chance = {name: _mean([chance_level(part[name]) for part in parts]) for name in parts[0]}
    to_texts, to_items = zip(*(part.values() for part in parts), strict=True)
    return {
        **{name: _mean([summarize(part[name]) for part in parts]) for name in parts[0]},
        "rsum": fmean(map(rsum, parts)),
        "chance": by_chance | {"rsum": sum(level[f"R@{k}"] for level in by_chance.values() for k in RECALL_KS)},
        "interval": bootstrap(parts, resamples=resamples, seed=seed),
        "queries": {
            "items": round(fmean(len(way.ranks) for way in to_texts)),
            "texts": round(fmean(len(way.ranks) for way in to_items)),
        },
    }


def _mean(scored: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: fmean(values[name] for values in scored) for name in scored[0]}


def _speed(embedded: EmbeddedSplit) -> dict[str, float]:
    """Encoding rates, and exact search of all texts for their ten nearest items."""
    index = EmbeddingIndex.build(embedded.items, "Flat")
    start = time.perf_counter()
    index.search(embedded.texts, min(10, len(index)))
    seconds = time.perf_counter() - start
    return {
        "items_per_second": len(embedded.ids) / embedded.item_seconds,
        "texts_per_second": len(embedded.captions) / embedded.text_seconds,
        "search_ms": 1000 * seconds / len(embedded.captions),
    }
