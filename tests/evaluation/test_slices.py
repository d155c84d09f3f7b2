"""Slices of queries: their recalls are those of a loop over the queries, with intervals of the slice's own items."""

import numpy as np
import pytest

from cots.evaluation.bootstrap import bootstrap
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metrics import RankedQueries
from cots.evaluation.retrieval import evaluate_retrieval
from cots.evaluation.slices import LENGTH, recall_rows, slice_queries

ITEMS = 20


@pytest.fixture
def embedded() -> EmbeddedSplit:
    """Items with one to three texts; the longer a text, the farther from its item."""
    random = np.random.default_rng(0)
    text_to_item = np.repeat(np.arange(ITEMS), 1 + np.arange(ITEMS) % 3)
    words = random.integers(1, 10, size=len(text_to_item))
    items = random.normal(size=(ITEMS, 8)).astype(np.float32)
    texts = items[text_to_item] + 0.4 * words[:, None] * random.normal(size=(len(words), 8)).astype(np.float32)
    return EmbeddedSplit(
        ids=tuple(map(str, range(ITEMS))),
        captions=tuple(" ".join(["word"] * count) for count in words.tolist()),
        text_to_item=text_to_item,
        items=items / np.linalg.norm(items, axis=1, keepdims=True),
        texts=(texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32),
        item_seconds=1,
        text_seconds=1,
    )


def directions_of(embedded: EmbeddedSplit) -> dict[str, RankedQueries]:
    return evaluate_retrieval(embedded, media="image", folds=1, resamples=1, seed=0).directions


def test_a_slice_has_the_recalls_of_its_queries_among_all_candidates(embedded: EmbeddedSplit) -> None:
    directions = directions_of(embedded)
    places = [None if row == 7 else ("sea", "land", "air")[row % 3] for row in range(ITEMS)]
    slices = list(slice_queries(embedded, directions, {"place": places}, max_values=2))
    of_items = {"i2t": np.arange(ITEMS), "t2i": embedded.text_to_item}
    kept = {name for by, name in ((of.by, of.value) for of in slices) if by == "place"}
    assert kept == {"sea", "land"}  # of six or seven items each; air has six
    rows = list(recall_rows(slices, resamples=50, seed=0))
    for row in rows:
        if row["by"] != "place":
            continue
        members = [n for n, item in enumerate(of_items[row["direction"]]) if places[item] == row["value"]]
        ranks = directions[row["direction"]].ranks[members]
        k = int(row["metric"].removeprefix("R@"))
        assert row["queries"] == len(members)
        assert row["score"] == pytest.approx(100 * np.mean(ranks <= k))
        assert row["low"] <= row["score"] <= row["high"]


def test_texts_are_sliced_into_thirds_by_their_words_and_longer_ones_are_harder_here(embedded: EmbeddedSplit) -> None:
    slices = list(slice_queries(embedded, directions_of(embedded), {}, max_values=1))
    assert [(of.direction, of.by) for of in slices] == [("t2i", LENGTH)] * 3
    names = [of.value.split(",")[0] for of in slices]
    assert names == ["short", "medium", "long"]
    assert sum(len(of.queries.ranks) for of in slices) == len(embedded.captions)
    bounds = int(slices[0].value.split()[2]), int(slices[2].value.split()[2])
    words = np.array([len(caption.split()) for caption in embedded.captions])
    assert len(slices[0].queries.ranks) == np.count_nonzero(words <= bounds[0])
    assert len(slices[2].queries.ranks) == np.count_nonzero(words >= bounds[1])
    first = [row["score"] for row in recall_rows(slices, resamples=1, seed=0) if row["metric"] == "R@1"]
    assert first[0] > first[2]


def test_texts_of_one_length_are_no_slices(embedded: EmbeddedSplit) -> None:
    directions = directions_of(embedded)
    same = EmbeddedSplit(**{name: getattr(embedded, name) for name in EmbeddedSplit.__slots__} | {"captions": ("a b",)})
    assert list(slice_queries(same, directions, {}, max_values=1)) == []


def test_all_queries_as_one_slice_have_the_interval_of_the_whole(embedded: EmbeddedSplit) -> None:
    directions = directions_of(embedded)
    whole = list(slice_queries(embedded, directions, {"place": ["sea"] * ITEMS}, max_values=1))
    intervals = bootstrap([{"t2i": directions["t2i"]}], resamples=30, seed=4)["t2i"]
    for row in recall_rows([whole[-1]], resamples=30, seed=4):
        assert {"low": row["low"], "high": row["high"]} == intervals[row["metric"]]


def test_some_queries_keep_the_ranks_of_all_their_right_candidates(embedded: EmbeddedSplit) -> None:
    queries = directions_of(embedded)["i2t"]
    chosen = np.arange(ITEMS) % 4 == 1
    some = queries.select(chosen)
    assert some.candidates == queries.candidates
    assert some.query_to_item.tolist() == list(range(5))
    every = queries.sum_over_right(lambda ranks: ranks.astype(np.float64))
    assert some.sum_over_right(lambda ranks: ranks.astype(np.float64)).tolist() == every[chosen].tolist()
