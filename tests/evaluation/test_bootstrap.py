"""Intervals against the binomial one, the invariances of a bootstrap, and a slow reference."""

import math

import numpy as np
import pytest

from cots.evaluation import metric_table, metrics
from cots.evaluation.bootstrap import bootstrap
from cots.evaluation.metrics import RankedQueries


def direction(ranks: list[int], candidates: int) -> RankedQueries:
    queries = np.arange(len(ranks))
    return RankedQueries(np.array(ranks), queries, np.ones(len(ranks), np.int64), candidates, 1.0 / np.array(ranks))


def random_ways(random: np.random.Generator, counts: list[int]) -> dict[str, RankedQueries]:
    owners = np.repeat(np.arange(len(counts)), counts)
    items, texts = random.normal(size=(len(counts), 4)), random.normal(size=(len(owners), 4))
    return dict(zip(("i2t", "t2i"), metrics.rank_queries(items, texts, owners), strict=True))


def drawn_again(way: RankedQueries, items: list[int]) -> RankedQueries:
    """The direction with the queries of these items, as often as each is listed."""
    rows = np.concatenate([np.flatnonzero(way.text_to_item == item) for item in items])
    return RankedQueries(
        way.ranks[rows], way.text_to_item[rows], way.relevant[rows], way.candidates, way.average_precision[rows]
    )


@pytest.mark.parametrize("parts", [[[3, 1, 4, 2, 2]], [[2] * 4, [1, 3, 2]]])
def test_intervals_are_those_of_the_scores_of_sets_that_were_really_drawn(parts: list[list[int]]) -> None:
    folds = [random_ways(np.random.default_rng(len(counts)), counts) for counts in parts]
    random = np.random.default_rng(7)
    draws = []
    for _ in range(25):
        items = [random.integers(len(counts), size=len(counts)).tolist() for counts in parts]
        sets = [{n: drawn_again(way, i) for n, way in fold.items()} for fold, i in zip(folds, items, strict=True)]
        figures = [
            {(n, score): v for n, way in one.items() for score, v in metric_table.summarize(way).items()}
            for one in sets
        ]
        draws.append({key: np.mean([one[key] for one in figures]) for key in figures[0]})
        draws[-1]["rsum", ""] = np.mean([metrics.rsum(one) for one in sets])
    found = bootstrap(folds, resamples=25, seed=7)
    for way, score in draws[0]:
        low, high = np.percentile([draw[way, score] for draw in draws], [2.5, 97.5])
        assert (found[way][score] if score else found[way]) == pytest.approx({"low": low, "high": high})


def test_intervals_hold_the_score_and_agree_with_the_binomial_one() -> None:
    random = np.random.default_rng(0)
    ranks = random.integers(1, 21, size=400).tolist()
    ways = {"i2t": direction(ranks, 400), "t2i": direction(ranks, 400)}
    intervals = bootstrap([ways], resamples=2000, seed=1)
    share = metrics.recall_at_k(np.array(ranks), 10)
    half = 1.96 * math.sqrt(share * (100 - share) / 400)
    assert intervals["i2t"]["R@10"]["low"] == pytest.approx(share - half, abs=0.7)
    assert intervals["i2t"]["R@10"]["high"] == pytest.approx(share + half, abs=0.7)
    assert intervals["t2i"]["MdR"]["low"] <= metrics.median_rank(np.array(ranks)) <= intervals["t2i"]["MdR"]["high"]
    assert intervals["rsum"]["low"] < metrics.rsum(ways) < intervals["rsum"]["high"]


def test_captions_of_one_picture_are_no_independent_evidence() -> None:
    random = np.random.default_rng(0)
    of_pictures = random.integers(1, 3, size=100)
    alone = direction(of_pictures.tolist(), 100)
    owners = np.repeat(np.arange(100), 5)
    repeated = RankedQueries(
        np.repeat(of_pictures, 5), owners, np.ones(500, np.int64), 100, np.repeat(1 / of_pictures, 5)
    )
    wide, narrow = (bootstrap([{"t2i": way}], resamples=300, seed=0) for way in (alone, repeated))
    assert wide["t2i"] == {name: pytest.approx(interval) for name, interval in narrow["t2i"].items()}
    assert wide["rsum"] == pytest.approx(narrow["rsum"])


def test_intervals_repeat_with_their_seed() -> None:
    ways = {"t2i": direction([1, 2, 30, 4, 7, 11], 40)}
    first = bootstrap([ways], resamples=50, seed=5)
    assert first == bootstrap([ways], resamples=50, seed=5)
    assert first != bootstrap([ways], resamples=50, seed=6)


def test_one_query_has_an_interval_of_no_width() -> None:
    assert bootstrap([{"t2i": direction([3], 9)}], resamples=9, seed=0)["t2i"]["R@5"] == {"low": 100, "high": 100}
