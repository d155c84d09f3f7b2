"""Which queries a gallery shows, and with which results."""

import numpy as np
import pytest

from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metrics import RankedQueries
from cots.evaluation.retrieval import evaluate_retrieval
from cots.report.gallery import (
    NUM_HITS,
    choose_queries,
    collect_ids,
    item_queries,
    plan_items_to_texts,
    plan_texts_to_items,
    text_queries,
)
from cots.report.inline_images import InlineImage

ITEMS = 30
IMAGES = {f"p{number}": InlineImage("data:,", f"p{number}", 1, 1) for number in range(ITEMS)}


@pytest.fixture
def embedded() -> EmbeddedSplit:
    """Half of the images are near their captions, the others have random embeddings."""
    random = np.random.default_rng(0)
    items = random.normal(size=(ITEMS, 24)).astype(np.float32)
    texts = items[np.repeat(np.arange(ITEMS), 2)] + 0.1 * random.normal(size=(2 * ITEMS, 24)).astype(np.float32)
    items[15:] = random.normal(size=(15, 24))
    return EmbeddedSplit(
        ids=tuple(IMAGES),
        captions=tuple(f"p{number // 2} caption {number % 2}" for number in range(2 * ITEMS)),
        text_to_item=np.repeat(np.arange(ITEMS), 2),
        items=items / np.linalg.norm(items, axis=1, keepdims=True),
        texts=texts / np.linalg.norm(texts, axis=1, keepdims=True),
        item_seconds=1,
        text_seconds=1,
    )


def ranked(ranks: list[int], query_to_item: list[int] | None = None) -> RankedQueries:
    items = np.arange(len(ranks)) if query_to_item is None else np.array(query_to_item)
    return RankedQueries(np.array(ranks), items, np.ones(len(ranks), np.int64), 100, np.zeros(len(ranks)))


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_half_of_the_queries_are_failures(count: int) -> None:
    ranks = [1] * 50 + [3] * 50 + [40] * 50
    chosen = [ranks[row] for row in choose_queries(ranked(ranks), count=count, seed=0)]
    assert len(chosen) == count
    assert chosen == sorted(chosen)
    assert set(chosen) <= {1, 40}
    assert chosen.count(40) == count // 2


def test_if_all_queries_fail_or_succeed_all_examples_do() -> None:
    assert len(choose_queries(ranked([9] * 20), count=6, seed=0)) == 6
    assert len(choose_queries(ranked([1] * 20), count=6, seed=0)) == 6
    assert len(choose_queries(ranked([1, 9, 3]), count=6, seed=0)) == 2
    assert choose_queries(ranked([3] * 20), count=6, seed=0).tolist() == []


def test_an_image_is_shown_with_one_of_its_captions() -> None:
    query_to_item = np.repeat(np.arange(4), 5)
    chosen = choose_queries(ranked([9] * 20, query_to_item.tolist()), count=8, seed=0)
    assert sorted(query_to_item[chosen].tolist()) == [0, 1, 2, 3]


def test_the_choice_repeats_with_its_seed() -> None:
    queries = ranked(np.random.default_rng(0).integers(1, 30, 500).tolist())
    first = choose_queries(queries, count=20, seed=1).tolist()
    assert first == choose_queries(queries, count=20, seed=1).tolist()
    assert first != choose_queries(queries, count=20, seed=2).tolist()


def test_text_queries_have_their_images_in_order_with_the_right_one_marked(embedded: EmbeddedSplit) -> None:
    to_items = evaluate_retrieval(embedded, media="image", folds=1, resamples=1, seed=0).directions["t2i"]
    plan = plan_texts_to_items(embedded, to_items, count=8, seed=0)
    for query in text_queries(embedded, plan, IMAGES):
        right = query.text.split()[0]
        order = np.argsort(-(embedded.items @ embedded.texts[embedded.captions.index(query.text)]))
        assert [hit.text for hit in query.hits] == [f"p{row}" for row in order[:NUM_HITS]]
        assert [hit.rank for hit in query.hits] == [1, 2, 3, 4, 5]
        assert [hit.right for hit in query.hits] == [hit.text == right for hit in query.hits]
        assert (query.missed is None) == (query.rank <= NUM_HITS)
        if query.missed:
            assert (query.missed.text, query.missed.rank) == (right, query.rank)


def test_image_queries_have_captions_and_the_best_right_one_if_all_are_wrong(embedded: EmbeddedSplit) -> None:
    to_texts = evaluate_retrieval(embedded, media="image", folds=1, resamples=1, seed=0).directions["i2t"]
    plan = plan_items_to_texts(embedded, to_texts, count=8, seed=0)
    queries = item_queries(embedded, plan, IMAGES)
    assert {query.missed is None for query in queries} == {True, False}
    for query in queries:
        assert query.image == IMAGES[query.text]
        assert [hit.right for hit in query.hits] == [hit.text.split()[0] == query.text for hit in query.hits]
        order = np.argsort(-(embedded.texts @ embedded.items[embedded.ids.index(query.text)]))
        right = [embedded.captions[row] for row in order if embedded.captions[row].split()[0] == query.text]
        if query.missed:
            assert query.missed.text == right[0]
            assert order.tolist().index(embedded.captions.index(right[0])) + 1 == query.rank


def test_only_the_images_of_the_gallery_are_loaded(embedded: EmbeddedSplit) -> None:
    result = evaluate_retrieval(embedded, media="image", folds=1, resamples=1, seed=0)
    by_item = plan_items_to_texts(embedded, result.directions["i2t"], count=2, seed=0)
    by_text = plan_texts_to_items(embedded, result.directions["t2i"], count=1, seed=0)
    ids = collect_ids(embedded, by_item, by_text)
    assert len(ids) <= 2 + NUM_HITS + 1
    images = {name: IMAGES[name] for name in ids}
    assert len(item_queries(embedded, by_item, images)) == 2
    assert len(text_queries(embedded, by_text, images)) == 1


def test_a_gallery_of_few_items_shows_all_of_them(embedded: EmbeddedSplit) -> None:
    two = EmbeddedSplit(
        ids=("p0", "p1"),
        captions=embedded.captions[:4],
        text_to_item=embedded.text_to_item[:4],
        items=embedded.items[:2],
        texts=embedded.texts[:4],
        item_seconds=1,
        text_seconds=1,
    )
    result = evaluate_retrieval(two, media="image", folds=1, resamples=1, seed=0)
    query = text_queries(two, plan_texts_to_items(two, result.directions["t2i"], count=1, seed=0), IMAGES)[0]
    assert [hit.text for hit in query.hits] == ["p0", "p1"] if query.text.startswith("p0") else ["p1", "p0"]
