"""Which queries a gallery shows, and what it says of them."""

import numpy as np
import pytest

from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metrics import RankedQueries
from cots.evaluation.retrieval import evaluate_retrieval
from cots.report.gallery import (
    HITS_SHOWN,
    choose,
    ids_shown,
    plan_items_to_texts,
    plan_texts_to_items,
    queries_by_item,
    queries_by_text,
)
from cots.report.pictures import Picture

ITEMS = 30
PICTURES = {f"p{number}": Picture("data:,", f"p{number}", 1, 1) for number in range(ITEMS)}


@pytest.fixture
def embedded() -> EmbeddedSplit:
    """Half of the pictures are where their captions are, the others are drawn anywhere."""
    random = np.random.default_rng(0)
    items = random.normal(size=(ITEMS, 24)).astype(np.float32)
    texts = items[np.repeat(np.arange(ITEMS), 2)] + 0.1 * random.normal(size=(2 * ITEMS, 24)).astype(np.float32)
    items[15:] = random.normal(size=(15, 24))
    return EmbeddedSplit(
        ids=tuple(PICTURES),
        captions=tuple(f"p{number // 2} caption {number % 2}" for number in range(2 * ITEMS)),
        text_to_item=np.repeat(np.arange(ITEMS), 2),
        items=items / np.linalg.norm(items, axis=1, keepdims=True),
        texts=texts / np.linalg.norm(texts, axis=1, keepdims=True),
        item_seconds=1,
        text_seconds=1,
    )


def ranked(ranks: list[int], owners: list[int] | None = None) -> RankedQueries:
    own = np.arange(len(ranks)) if owners is None else np.array(owners)
    return RankedQueries(np.array(ranks), own, np.ones(len(ranks), np.int64), 100, np.zeros(len(ranks)))


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_half_of_the_queries_shown_are_failures(count: int) -> None:
    ranks = [1] * 50 + [3] * 50 + [40] * 50
    chosen = [ranks[row] for row in choose(ranked(ranks), count=count, seed=0)]
    assert len(chosen) == count
    assert chosen == sorted(chosen)
    assert set(chosen) <= {1, 40}
    assert chosen.count(40) == count // 2


def test_where_all_fail_only_failures_are_shown_and_the_reverse() -> None:
    assert len(choose(ranked([9] * 20), count=6, seed=0)) == 6
    assert len(choose(ranked([1] * 20), count=6, seed=0)) == 6
    assert len(choose(ranked([1, 9, 3]), count=6, seed=0)) == 2
    assert choose(ranked([3] * 20), count=6, seed=0).tolist() == []


def test_captions_of_one_picture_are_not_shown_twice() -> None:
    owners = np.repeat(np.arange(4), 5)
    chosen = choose(ranked([9] * 20, owners.tolist()), count=8, seed=0)
    assert sorted(owners[chosen].tolist()) == [0, 1, 2, 3]


def test_the_choice_repeats_with_its_seed() -> None:
    ranks = ranked(np.random.default_rng(0).integers(1, 30, 500).tolist())
    first = choose(ranks, count=20, seed=1).tolist()
    assert first == choose(ranks, count=20, seed=1).tolist()
    assert first != choose(ranks, count=20, seed=2).tolist()


def test_text_queries_show_their_pictures_in_order_with_the_right_one_marked(embedded: EmbeddedSplit) -> None:
    direction = evaluate_retrieval(embedded, media="image", folds=1, resamples=1, seed=0).directions["t2i"]
    plan = plan_texts_to_items(embedded, direction, count=8, seed=0)
    for query in queries_by_text(embedded, plan, PICTURES):
        owner = query.text.split()[0]
        order = np.argsort(-(embedded.items @ embedded.texts[embedded.captions.index(query.text)]))
        assert [hit.text for hit in query.hits] == [f"p{row}" for row in order[:HITS_SHOWN]]
        assert [hit.rank for hit in query.hits] == [1, 2, 3, 4, 5]
        assert [hit.right for hit in query.hits] == [hit.text == owner for hit in query.hits]
        assert (query.missed is None) == (query.rank <= HITS_SHOWN)
        if query.missed:
            assert (query.missed.text, query.missed.rank) == (owner, query.rank)


def test_picture_queries_show_captions_and_the_best_right_one_where_all_miss(embedded: EmbeddedSplit) -> None:
    direction = evaluate_retrieval(embedded, media="image", folds=1, resamples=1, seed=0).directions["i2t"]
    plan = plan_items_to_texts(embedded, direction, count=8, seed=0)
    queries = queries_by_item(embedded, plan, PICTURES)
    assert {query.missed is None for query in queries} == {True, False}
    for query in queries:
        assert query.picture == PICTURES[query.text]
        assert [hit.right for hit in query.hits] == [hit.text.split()[0] == query.text for hit in query.hits]
        order = np.argsort(-(embedded.texts @ embedded.items[embedded.ids.index(query.text)]))
        own = [embedded.captions[row] for row in order if embedded.captions[row].split()[0] == query.text]
        if query.missed:
            assert query.missed.text == own[0]
            assert order.tolist().index(embedded.captions.index(own[0])) + 1 == query.rank


def test_only_the_pictures_that_are_shown_are_fetched(embedded: EmbeddedSplit) -> None:
    measured = evaluate_retrieval(embedded, media="image", folds=1, resamples=1, seed=0)
    by_item = plan_items_to_texts(embedded, measured.directions["i2t"], count=2, seed=0)
    by_text = plan_texts_to_items(embedded, measured.directions["t2i"], count=1, seed=0)
    shown = ids_shown(embedded, by_item, by_text)
    assert len(shown) <= 2 + HITS_SHOWN + 1
    few = {name: PICTURES[name] for name in shown}
    assert len(queries_by_item(embedded, by_item, few)) == 2
    assert len(queries_by_text(embedded, by_text, few)) == 1


def test_a_gallery_of_fewer_items_than_are_shown_shows_them_all(embedded: EmbeddedSplit) -> None:
    two = EmbeddedSplit(
        ids=("p0", "p1"),
        captions=embedded.captions[:4],
        text_to_item=embedded.text_to_item[:4],
        items=embedded.items[:2],
        texts=embedded.texts[:4],
        item_seconds=1,
        text_seconds=1,
    )
    measured = evaluate_retrieval(two, media="image", folds=1, resamples=1, seed=0)
    query = queries_by_text(two, plan_texts_to_items(two, measured.directions["t2i"], count=1, seed=0), PICTURES)[0]
    assert [hit.text for hit in query.hits] == ["p0", "p1"] if query.text.startswith("p0") else ["p1", "p0"]
