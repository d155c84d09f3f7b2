"""Galleries: a few queries with what was found for them, successes and failures alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metrics import RankedQueries
from cots.index.embedding_index import EmbeddingIndex
from cots.report.pictures import Picture

HITS_SHOWN = 5  # results a query


@dataclass(frozen=True, slots=True)
class Hit:
    """One result.

    Attributes:
        rank: from 1.
        right: whether it belongs to the query.
        text: the caption found, or the id of the picture found.
        picture: of the item found; None where a caption was found.
    """

    rank: int
    right: bool
    text: str
    picture: Picture | None


@dataclass(frozen=True, slots=True)
class GalleryQuery:
    """One query with its results.

    Attributes:
        text: the caption asked with, or the id of the picture asked with.
        picture: asked with; None where the query is a text.
        rank: of the best right candidate, from 1.
        hits: the first few results.
        missed: the best right candidate where it is not among them.
        before: the first few results before fine-tuning; empty where that is not shown.
    """

    text: str
    picture: Picture | None
    rank: int
    hits: list[Hit]
    missed: Hit | None
    before: list[Hit]


@dataclass(frozen=True, slots=True)
class GalleryPlan:
    """What a gallery will show, in rows of `Embedded`.

    Attributes:
        queries: (Q,) rows asked with.
        found: (Q, k) rows found, best first.
        best: (Q,) the best right row.
        ranks: (Q,) its rank.
        before: (Q, k) rows found before fine-tuning, or (Q, 0).
    """

    queries: NDArray[np.int64]
    found: NDArray[np.int64]
    best: NDArray[np.int64]
    ranks: NDArray[np.int64]
    before: NDArray[np.int64]


def choose(direction: RankedQueries, *, count: int, seed: int) -> NDArray[np.int64]:
    """Rows of queries: half answered at once, half not among the first results; as many as there are of each.

    No two of a kind ask for the same item.
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


def plan_items_to_texts(embedded: EmbeddedSplit, direction: RankedQueries, *, count: int, seed: int) -> GalleryPlan:
    """Pictures or clips as queries, captions as results."""
    rows = choose(direction, count=count, seed=seed)
    found = _nearest(embedded.items[rows], embedded.texts)
    best = [_best(embedded.items[row], embedded.texts, np.flatnonzero(embedded.text_to_item == row)) for row in rows]
    return GalleryPlan(rows, found, np.array(best, np.int64), direction.ranks[rows], np.zeros((len(rows), 0), np.int64))


def plan_texts_to_items(
    embedded: EmbeddedSplit, direction: RankedQueries, *, count: int, seed: int, before: EmbeddedSplit | None = None
) -> GalleryPlan:
    """Captions as queries, pictures or clips as results; `before` is the same split before fine-tuning."""
    rows = choose(direction, count=count, seed=seed)
    found = _nearest(embedded.texts[rows], embedded.items)
    earlier = _nearest(before.texts[rows], before.items) if before else found[:, :0]
    return GalleryPlan(rows, found, embedded.text_to_item[rows], direction.ranks[rows], earlier)


def ids_shown(embedded: EmbeddedSplit, items_to_texts: GalleryPlan, texts_to_items: GalleryPlan) -> set[str]:
    """Ids of all items that two galleries show."""
    rows = [items_to_texts.queries, texts_to_items.found.ravel(), texts_to_items.best, texts_to_items.before.ravel()]
    return {embedded.ids[row] for row in np.concatenate(rows)}


def queries_by_item(embedded: EmbeddedSplit, plan: GalleryPlan, pictures: Mapping[str, Picture]) -> list[GalleryQuery]:
    """The gallery of `plan_items_to_texts`."""

    def hit(row: int, rank: int, item: int) -> Hit:
        return Hit(rank, bool(embedded.text_to_item[row] == item), embedded.captions[row], None)

    return [
        GalleryQuery(
            embedded.ids[item], pictures[embedded.ids[item]], rank, *_results(hit, found, best, rank, item), []
        )
        for item, found, best, rank, _ in _rows(plan)
    ]


def queries_by_text(embedded: EmbeddedSplit, plan: GalleryPlan, pictures: Mapping[str, Picture]) -> list[GalleryQuery]:
    """The gallery of `plan_texts_to_items`."""

    def hit(row: int, rank: int, text: int) -> Hit:
        name = embedded.ids[row]
        return Hit(rank, bool(embedded.text_to_item[text] == row), name, pictures[name])

    return [
        GalleryQuery(
            embedded.captions[text],
            None,
            rank,
            *_results(hit, found, best, rank, text),
            [hit(row, place, text) for place, row in enumerate(before, start=1)],
        )
        for text, found, best, rank, before in _rows(plan)
    ]


def _results(
    hit: Callable[[int, int, int], Hit], found: list[int], best: int, rank: int, query: int
) -> tuple[list[Hit], Hit | None]:
    hits = [hit(row, place, query) for place, row in enumerate(found, start=1)]
    return hits, None if any(shown.right for shown in hits) else hit(best, rank, query)


def _rows(plan: GalleryPlan) -> list[tuple[int, list[int], int, int, list[int]]]:
    columns = (array.tolist() for array in (plan.queries, plan.found, plan.best, plan.ranks, plan.before))
    return list(zip(*columns, strict=True))


def _nearest(queries: NDArray[np.float32], candidates: NDArray[np.float32]) -> NDArray[np.int64]:
    return EmbeddingIndex.build(candidates, "Flat").search(queries, min(HITS_SHOWN, len(candidates)))[1]


def _best(query: NDArray[np.float32], candidates: NDArray[np.float32], right: NDArray[np.int64]) -> int:
    return int(right[np.argmax(candidates[right] @ query)])
