"""Retrieval by language and across languages, against matrices and against the same measured alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cots.cli.tables import retrieval_table
from cots.evaluation.by_language import across_rows
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metrics import rank_across, rank_queries
from cots.evaluation.retrieval import evaluate_retrieval
from cots.report.language_tables import language_tables

ITEMS = 12
TAGS = ("en", "zh", "en", "")  # of the captions of each item


def unit_rows(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rows = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture
def embedded() -> EmbeddedSplit:
    """Items with two English captions, a Chinese one and one of unknown language; the last item lacks Chinese."""
    texts = len(TAGS) * ITEMS
    return EmbeddedSplit(
        ids=tuple(map(str, range(ITEMS))),
        captions=tuple(map(str, range(texts))),
        text_to_item=np.repeat(np.arange(ITEMS), len(TAGS)),
        items=unit_rows(0, ITEMS),
        texts=unit_rows(1, texts),
        item_seconds=1.0,
        text_seconds=1.0,
        languages=(*TAGS * (ITEMS - 1), "en", "en", "en", ""),
    )


def metrics_of(embedded: EmbeddedSplit) -> dict[str, Any]:
    return evaluate_retrieval(embedded, media="image", folds=1, resamples=20, seed=0).metrics


def test_a_text_is_ranked_by_the_similarities_and_ties_count_against_it() -> None:
    candidates = np.eye(4)
    queries = np.array([[0.5, 0.5, 0.1, 0.9], [0.0, 0.3, 0.2, 0.1]])
    ranked = rank_across(queries, np.array([7, 3]), candidates, np.array([7, 3, 7, 3]))
    assert ranked.ranks.tolist() == [3, 1]  # of item 7: 0.5 behind 0.9 and the wrong 0.5; of item 3: 0.3
    assert ranked.right_ranks is not None
    assert ranked.right_ranks.tolist() == [3, 4, 1, 3]
    assert ranked.relevant.tolist() == [2, 2]
    assert ranked.average_precision.tolist() == [0, 0.5]
    with pytest.raises(ValueError, match="1 queries have no right candidate"):
        rank_across(queries, np.array([7, 8]), candidates, np.array([7, 3, 7, 3]))


def test_with_items_as_queries_it_ranks_as_retrieval_does(embedded: EmbeddedSplit) -> None:
    expected, _ = rank_queries(embedded.items, embedded.texts, embedded.text_to_item)
    actual = rank_across(embedded.items, np.arange(ITEMS), embedded.texts, embedded.text_to_item)
    for name in ("ranks", "relevant", "right_ranks", "average_precision", "query_to_item"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))


def test_a_language_scores_as_a_split_that_has_only_its_captions(embedded: EmbeddedSplit) -> None:
    metrics = metrics_of(embedded)
    assert set(metrics["languages"]) == {"en", "zh"}
    rows = np.flatnonzero(np.array(embedded.languages) == "zh")
    alone = replace(
        embedded,
        ids=embedded.ids[:-1],
        items=embedded.items[:-1],
        texts=embedded.texts[rows],
        captions=tuple(embedded.captions[row] for row in rows),
        text_to_item=embedded.text_to_item[rows],
        languages=("zh",) * len(rows),
    )
    expected = metrics_of(alone)
    assert "languages" not in expected
    assert "across_languages" not in expected
    assert metrics["languages"]["zh"] == {name: expected[name] for name in expected if name != "speed"}
    assert metrics["languages"]["en"]["queries"] == {"items": ITEMS, "texts": 2 * ITEMS + 1}
    assert metrics["i2t"] == metrics_of(replace(embedded, languages=()))["i2t"]


def test_a_caption_in_one_language_finds_those_of_its_item_in_another(embedded: EmbeddedSplit) -> None:
    tags, owner = np.array(embedded.languages), embedded.text_to_item
    english, chinese = np.flatnonzero((tags == "en") & (owner < ITEMS - 1)), np.flatnonzero(tags == "zh")
    similarity = embedded.texts[english].astype(float) @ embedded.texts[chinese].T
    right = owner[english, None] == owner[None, chinese]
    ranks = 1 + ((similarity >= similarity[right][:, None]) & ~right).sum(axis=1)
    scores = {(source, target): values for source, target, values in across_rows(metrics_of(embedded))}
    assert set(scores) == {("en", "zh"), ("zh", "en")}
    there = scores["en", "zh"]
    assert (there["queries"], there["candidates"]) == (len(english), ITEMS - 1)
    assert there["R@5"] == pytest.approx(100 * (ranks <= 5).mean(), abs=1e-3)
    assert there["mean_rank"] == pytest.approx(ranks.mean(), abs=1e-3)
    assert there["chance"]["R@1"] == pytest.approx(100 / (ITEMS - 1), abs=1e-3)


def test_tables_show_each_language_and_each_pair(embedded: EmbeddedSplit) -> None:
    metrics = metrics_of(embedded)
    within, across = language_tables(metrics)
    assert [row[:3] for row in within.rows] == [("en", 12, 25), ("zh", 11, 11)]
    assert within.rows[1][-2] == metrics["languages"]["zh"]["rsum"]
    assert [row[0] for row in across.rows] == ["en to zh", "zh to en"]
    assert all(len(row) == len(table.head) for table in (within, across) for row in table.rows)
    assert language_tables(metrics_of(replace(embedded, languages=("en",) * 48))) == []
    printed = retrieval_table({"image": metrics})
    for words in ("image, zh, text to image", "image, en, image to text", "image, text in zh to text in en"):
        assert words in printed
