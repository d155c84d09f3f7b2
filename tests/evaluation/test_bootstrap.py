"""Intervals against the binomial one, the invariances of a bootstrap, and a slow reference."""

import math

import numpy as np
import pytest

from cots.evaluation.bootstrap import bootstrap
from cots.evaluation.metric_table import rsum, summarize
from cots.evaluation.metrics import RankedQueries, rank_queries


def ranked(ranks: list[int], candidates: int) -> RankedQueries:
    queries = np.arange(len(ranks))
    return RankedQueries(np.array(ranks), queries, np.ones(len(ranks), np.int64), candidates, 1.0 / np.array(ranks))


def random_directions(random: np.random.Generator, counts: list[int]) -> dict[str, RankedQueries]:
    text_to_item = np.repeat(np.arange(len(counts)), counts)
    items, texts = random.normal(size=(len(counts), 4)), random.normal(size=(len(text_to_item), 4))
    return dict(zip(("i2t", "t2i"), rank_queries(items, texts, text_to_item), strict=True))


def resample(queries: RankedQueries, items: list[int]) -> RankedQueries:
    """The queries of these items, as often as each is listed."""
    rows = np.concatenate([np.flatnonzero(queries.query_to_item == item) for item in items])
    columns = queries.ranks[rows], queries.query_to_item[rows], queries.relevant[rows]
    return RankedQueries(*columns, queries.candidates, queries.average_precision[rows])


@pytest.mark.parametrize("captions", [[[3, 1, 4, 2, 2]], [[2] * 4, [1, 3, 2]]])
def test_intervals_are_those_of_test_sets_that_are_really_drawn(captions: list[list[int]]) -> None:
    """`captions` holds the number of captions of each item, for every fold."""
    folds = [random_directions(np.random.default_rng(len(counts)), counts) for counts in captions]
    random = np.random.default_rng(7)
    draws = []
    for _ in range(25):
        items = [random.integers(len(counts), size=len(counts)).tolist() for counts in captions]
        resampled = [
            {name: resample(queries, drawn) for name, queries in fold.items()}
            for fold, drawn in zip(folds, items, strict=True)
        ]
        scores = [
            {(name, metric): value for name, queries in fold.items() for metric, value in summarize(queries).items()}
            for fold in resampled
        ]
        draws.append({key: np.mean([by_key[key] for by_key in scores]) for key in scores[0]})
        draws[-1]["rsum", ""] = np.mean([rsum(fold) for fold in resampled])
    intervals = bootstrap(folds, resamples=25, seed=7)
    for name, metric in draws[0]:
        low, high = np.percentile([draw[name, metric] for draw in draws], [2.5, 97.5])
        interval = intervals[name][metric] if metric else intervals[name]
        assert interval == pytest.approx({"low": low, "high": high})


def test_intervals_contain_the_score_and_agree_with_the_binomial_interval() -> None:
    random = np.random.default_rng(0)
    ranks = random.integers(1, 21, size=400).tolist()
    directions = {"i2t": ranked(ranks, 400), "t2i": ranked(ranks, 400)}
    intervals = bootstrap([directions], resamples=2000, seed=1)
    recall = summarize(directions["i2t"])["R@10"]
    half_width = 1.96 * math.sqrt(recall * (100 - recall) / 400)
    assert intervals["i2t"]["R@10"]["low"] == pytest.approx(recall - half_width, abs=0.7)
    assert intervals["i2t"]["R@10"]["high"] == pytest.approx(recall + half_width, abs=0.7)
    assert intervals["t2i"]["MdR"]["low"] <= np.median(ranks) <= intervals["t2i"]["MdR"]["high"]
    assert intervals["rsum"]["low"] < rsum(directions) < intervals["rsum"]["high"]


def test_captions_of_one_image_are_not_independent() -> None:
    random = np.random.default_rng(0)
    of_images = random.integers(1, 3, size=100)
    single = ranked(of_images.tolist(), 100)
    query_to_item = np.repeat(np.arange(100), 5)
    repeated = RankedQueries(
        np.repeat(of_images, 5), query_to_item, np.ones(500, np.int64), 100, np.repeat(1 / of_images, 5)
    )
    of_one, of_five = (bootstrap([{"t2i": queries}], resamples=300, seed=0) for queries in (single, repeated))
    assert of_one["t2i"] == {name: pytest.approx(interval) for name, interval in of_five["t2i"].items()}
    assert of_one["rsum"] == pytest.approx(of_five["rsum"])


def test_intervals_repeat_with_their_seed() -> None:
    directions = {"t2i": ranked([1, 2, 30, 4, 7, 11], 40)}
    first = bootstrap([directions], resamples=50, seed=5)
    assert first == bootstrap([directions], resamples=50, seed=5)
    assert first != bootstrap([directions], resamples=50, seed=6)


def test_the_interval_of_one_query_has_no_width() -> None:
    assert bootstrap([{"t2i": ranked([3], 9)}], resamples=9, seed=0)["t2i"]["R@5"] == {"low": 100, "high": 100}
