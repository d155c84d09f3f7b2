"""The probability that a first result is right: curves that are known, a slow error, items left out whole."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

from cots.evaluation.calibration import BINS, MIN_QUERIES, calibrate, calibrate_texts, fit_logistic, probability
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metrics import rank_queries


def draw(count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and results that are right with probability 1 / (1 + exp(-(20 score - 10)))."""
    random = np.random.default_rng(seed)
    scores = random.uniform(0.2, 0.8, size=count)
    return scores, random.uniform(size=count) < probability(scores, -10.0, 20.0)


def test_the_curve_that_made_the_data_is_found_and_agrees_with_scikit_learn() -> None:
    scores, right = draw(20_000)
    intercept, slope = fit_logistic(scores, right)
    assert (intercept, slope) == pytest.approx((-10, 20), rel=0.05)
    reference = LogisticRegression(C=np.inf, tol=1e-8).fit(scores[:, None], right)
    assert (intercept, slope) == pytest.approx((reference.intercept_[0], reference.coef_[0, 0]), rel=1e-2)


def test_scores_that_separate_right_from_wrong_give_a_finite_curve() -> None:
    scores = np.linspace(0.1, 0.9, 100)
    intercept, slope = fit_logistic(scores, scores > 0.5)
    assert np.isfinite([intercept, slope]).all()
    low, high = probability(np.array([0.1, 0.9]), intercept, slope)
    assert low < 0.05
    assert high > 0.95


def test_results_that_are_all_right_give_a_high_probability_everywhere() -> None:
    scores, _ = draw(200)
    chances = probability(scores, *fit_logistic(scores, np.ones(200, bool)))
    assert chances == pytest.approx(np.full(200, 201 / 202), abs=1e-6)


def test_the_error_is_small_for_a_true_curve_and_large_where_a_curve_cannot_follow() -> None:
    scores, right = draw(5000)
    fitted = calibrate(scores, right, np.arange(5000))
    assert fitted is not None
    assert fitted.error < 0.03
    humped = calibrate(scores, np.abs(scores - 0.5) < 0.1, np.arange(5000))
    assert humped is not None
    assert humped.error > 0.2


def test_the_error_is_the_mean_difference_over_bins_of_equally_many_queries() -> None:
    scores, right = draw(103)
    fitted = calibrate(scores, right, np.arange(103))
    assert fitted is not None
    assert [members.queries for members in fitted.bins] == [11] * 3 + [10] * 7
    assert len(fitted.bins) == BINS
    order, start, error = sorted(range(103), key=lambda row: scores[row]), 0, 0.0
    for members in fitted.bins:
        rows = order[start : start + members.queries]
        assert (members.low, members.high) == (scores[rows[0]], scores[rows[-1]])
        assert members.right == pytest.approx(sum(right[row] for row in rows) / len(rows))
        error += len(rows) / 103 * abs(members.predicted - members.right)
        start += members.queries
    assert fitted.error == pytest.approx(error)
    assert fitted.summary()["ece"] == pytest.approx(100 * error, abs=1e-5)


def test_no_query_is_predicted_by_a_curve_that_knows_its_item() -> None:
    """Two groups of items with opposite curves: what the four other fifths say is wrong for the fifth."""
    scores, _ = draw(1000)
    items = np.arange(1000) % 10
    fifth = items % 5 == 0
    right = np.where(fifth, scores < 0.5, scores > 0.5)
    fitted = calibrate(scores, right, items)
    assert fitted is not None
    predicted_low = fitted.bins[0].predicted
    assert predicted_low < 0.15  # 0.2 of these are right, and a curve that knew them would say so
    assert fitted.bins[0].right == pytest.approx(0.2, abs=0.06)


def test_too_few_queries_or_items_have_no_curve() -> None:
    scores, right = draw(MIN_QUERIES)
    assert calibrate(scores, right, np.arange(MIN_QUERIES)) is not None
    assert calibrate(scores[1:], right[1:], np.arange(MIN_QUERIES - 1)) is None
    assert calibrate(scores, right, np.arange(MIN_QUERIES) % 4) is None


def test_texts_are_calibrated_by_the_score_of_their_nearest_item() -> None:
    random = np.random.default_rng(0)
    items = random.normal(size=(60, 6)).astype(np.float32)
    texts = items + random.normal(size=(60, 6)).astype(np.float32)
    items, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (items, texts))
    embedded = EmbeddedSplit(
        ids=tuple(map(str, range(60))),
        captions=("a",) * 60,
        text_to_item=np.arange(60),
        items=items,
        texts=texts,
        item_seconds=1,
        text_seconds=1,
    )
    found = calibrate_texts(embedded, rank_queries(items, texts, np.arange(60))[1])
    similarity = texts @ items.T
    expected = calibrate(similarity.max(axis=1), similarity.argmax(axis=1) == np.arange(60), np.arange(60))
    assert found is not None
    assert expected is not None
    assert found.summary() == pytest.approx(expected.summary(), rel=1e-3)
