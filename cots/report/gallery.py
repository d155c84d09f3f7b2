"""Galleries: a few example queries with their results, successes and failures alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metrics import RankedQueries
from cots.index.embedding_index import EmbeddingIndex
from cots.report.inline_images import InlineImage

NUM_HITS = 5  # results per query

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Hit:
    """One result.

    Attributes:
        rank: from 1.
        right: whether it belongs to the query.
        text: the caption, or the id of the item.
        image: of the item; None if the result is a caption.
    """

    rank: int
    right: bool
    text: str
    image: InlineImage | None


@dataclass(frozen=True, slots=True)
class GalleryQuery:
    """One query with its results.

    Attributes:
        text: the caption, or the id of the item.
        image: of the item; None if the query is a caption.
        rank: of the best right candidate, from 1.
        hits: the first results.
        missed: the best right candidate if it is not among them.
        before: the first results before fine-tuning; empty if they are not shown.
    """

    text: str
    image: InlineImage | None
    rank: int
    hits: list[Hit]
    missed: Hit | None
    before: list[Hit]


@dataclass(frozen=True, slots=True)
class GalleryPlan:
    """Rows of an `EmbeddedSplit` that a gallery shows.

    Attributes:
        queries: (Q,) rows of the queries.
        results: (Q, k) rows of the first results, best first.
        best: (Q,) row of the best right candidate.
        ranks: (Q,) its rank.
        before: (Q, k) rows of the first results before fine-tuning, or (Q, 0).
    """

    queries: Rows
    results: Rows
    best: Rows
    ranks: Rows
    before: Rows


def choose_queries(queries: RankedQueries, *, count: int, seed: int) -> Rows:
    """Rows of random queries: half of rank 1, half without a right candidate among the first results.

    If there are too few of one half, there are more of the other. No two queries of one half belong to the same item.
    """
    ranks, query_to_item = queries.ranks, queries.query_to_item
    order = np.random.default_rng(seed).permutation(len(ranks))
    successes, failures = (
        _first_of_each_item(order[selected[order]], query_to_item) for selected in (ranks == 1, ranks > NUM_HITS)
    )
    failures = failures[: max(count // 2, count - len(successes))]
    return np.concatenate([successes[: count - len(failures)], failures]).astype(np.int64)


def _first_of_each_item(rows: Rows, query_to_item: Rows) -> Rows:
    _, first = np.unique(query_to_item[rows], return_index=True)
    return rows[np.sort(first)]


def plan_items_to_texts(embedded: EmbeddedSplit, queries: RankedQueries, *, count: int, seed: int) -> GalleryPlan:
    """Plan a gallery with images or videos as queries and captions as results."""
    rows = choose_queries(queries, count=count, seed=seed)
    results = _nearest(embedded.items[rows], embedded.texts)
    best = [
        _most_similar(embedded.items[row], embedded.texts, np.flatnonzero(embedded.text_to_item == row)) for row in rows
    ]
    return GalleryPlan(rows, results, np.array(best, np.int64), queries.ranks[rows], results[:, :0])


def plan_texts_to_items(
    embedded: EmbeddedSplit, queries: RankedQueries, *, count: int, seed: int, before: EmbeddedSplit | None = None
) -> GalleryPlan:
    """Plan a gallery with captions as queries and images or videos as results.

    Args:
        embedded: the split.
        queries: texts to items.
        count: number of queries.
        seed: of their choice.
        before: the same split before fine-tuning, if its results are shown too.
    """
    rows = choose_queries(queries, count=count, seed=seed)
    results = _nearest(embedded.texts[rows], embedded.items)
    results_before = _nearest(before.texts[rows], before.items) if before else results[:, :0]
    return GalleryPlan(rows, results, embedded.text_to_item[rows], queries.ranks[rows], results_before)


def collect_ids(embedded: EmbeddedSplit, items_to_texts: GalleryPlan, texts_to_items: GalleryPlan) -> set[str]:
    """Ids of all items that two galleries show."""
    rows = [items_to_texts.queries, texts_to_items.results.ravel(), texts_to_items.best, texts_to_items.before.ravel()]
    return {embedded.ids[row] for row in np.concatenate(rows)}


def item_queries(embedded: EmbeddedSplit, plan: GalleryPlan, images: Mapping[str, InlineImage]) -> list[GalleryQuery]:
    """The queries of `plan_items_to_texts`."""

    def hit(row: int, rank: int, item: int) -> Hit:
        return Hit(rank, bool(embedded.text_to_item[row] == item), embedded.captions[row], None)

    return [
        GalleryQuery(embedded.ids[item], images[embedded.ids[item]], rank, *_hits(hit, results, best, rank, item), [])
        for item, results, best, rank, _ in _plan_rows(plan)
    ]


def text_queries(embedded: EmbeddedSplit, plan: GalleryPlan, images: Mapping[str, InlineImage]) -> list[GalleryQuery]:
    """The queries of `plan_texts_to_items`."""

    def hit(row: int, rank: int, text: int) -> Hit:
        name = embedded.ids[row]
        return Hit(rank, bool(embedded.text_to_item[text] == row), name, images[name])

    return [
        GalleryQuery(
            embedded.captions[text],
            None,
            rank,
            *_hits(hit, results, best, rank, text),
            [hit(row, place, text) for place, row in enumerate(before, start=1)],
        )
        for text, results, best, rank, before in _plan_rows(plan)
    ]


def _hits(
    hit: Callable[[int, int, int], Hit], results: list[int], best: int, rank: int, query: int
) -> tuple[list[Hit], Hit | None]:
    """The first results, and the best right candidate if it is not among them."""
    hits = [hit(row, place, query) for place, row in enumerate(results, start=1)]
    return hits, None if any(shown.right for shown in hits) else hit(best, rank, query)


def _plan_rows(plan: GalleryPlan) -> list[tuple[int, list[int], int, int, list[int]]]:
    columns = (array.tolist() for array in (plan.queries, plan.results, plan.best, plan.ranks, plan.before))
    return list(zip(*columns, strict=True))


def _nearest(queries: NDArray[np.float32], candidates: NDArray[np.float32]) -> Rows:
    return EmbeddingIndex.build(candidates, "Flat").search(queries, min(NUM_HITS, len(candidates)))[1]


def _most_similar(query: NDArray[np.float32], candidates: NDArray[np.float32], rows: Rows) -> int:
    return int(rows[np.argmax(candidates[rows] @ query)])
