"""The paired bootstrap: closed forms, and what a significance test must guarantee."""

from typing import Any

import numpy as np
import pytest

from cots.evaluation.metric_table import rsum, summarize
from cots.evaluation.metrics import RankedQueries, rank_queries
from cots.evaluation.paired import paired_bootstrap

Run = dict[str, RankedQueries]


def ranked(ranks: list[int] | np.ndarray[Any, Any]) -> Run:
    """Both directions with these ranks, one caption per image."""
    rows = np.arange(len(ranks))
    queries = RankedQueries(np.array(ranks), rows, np.ones(len(rows), np.int64), 50, 1.0 / np.array(ranks))
    return {"i2t": queries, "t2i": queries}


def noisy(random: np.random.Generator, noise: float, images: int = 40, captions: int = 3) -> Run:
    text_to_item = np.repeat(np.arange(images), captions)
    items = np.random.default_rng(0).normal(size=(images, 8))
    texts = items[text_to_item] + noise * random.normal(size=(len(text_to_item), 8))
    return dict(zip(("i2t", "t2i"), rank_queries(items, texts, text_to_item), strict=True))


def all_scores(result: dict[str, Any]) -> list[dict[str, float]]:
    return [result["rsum"], *(values for direction in ("i2t", "t2i") for values in result[direction].values())]


def test_a_model_does_not_differ_from_itself() -> None:
    run = noisy(np.random.default_rng(1), noise=1)
    for runs in ([run], [run, noisy(np.random.default_rng(2), noise=1)]):
        for values in all_scores(paired_bootstrap(runs, runs, resamples=50, seed=0)):
            assert values["difference"] == values["low"] == values["high"] == 0
            assert values["p"] == 1


def test_a_model_that_is_better_on_every_query_has_the_smallest_p() -> None:
    result = paired_bootstrap([ranked([1] * 9)], [ranked([11] * 9)], resamples=200, seed=0)
    assert result["rsum"] == pytest.approx(
        {"challenger": 600, "champion": 0, "difference": 600, "low": 600, "high": 600, "p": 2 / 201}
    )
    assert result["i2t"]["mean_rank"]["difference"] == -10
    assert all(values["p"] < 2 / 200 for values in all_scores(result))


def test_swapping_the_models_changes_only_the_sign() -> None:
    random = np.random.default_rng(1)
    good, bad = ([noisy(random, noise) for _ in range(3)] for noise in (1.0, 1.6))
    forward, swapped = (paired_bootstrap(*pair, resamples=300, seed=4) for pair in ((good, bad), (bad, good)))
    for score, mirrored in zip(all_scores(forward), all_scores(swapped), strict=True):
        assert score["p"] == mirrored["p"]
        assert (score["low"], score["high"]) == pytest.approx((-mirrored["high"], -mirrored["low"]))
        assert score["difference"] == pytest.approx(-mirrored["difference"])
        assert score["challenger"] == pytest.approx(mirrored["champion"])
        assert score["champion"] == pytest.approx(mirrored["challenger"])


def test_the_scores_are_means_over_the_runs() -> None:
    random = np.random.default_rng(2)
    ours, theirs = ([noisy(random, noise) for _ in range(2)] for noise in (1.0, 1.3))
    result = paired_bootstrap(ours, theirs, resamples=20, seed=0)
    for side, runs in (("challenger", ours), ("champion", theirs)):
        assert result["rsum"][side] == pytest.approx(np.mean([rsum(run) for run in runs]))
        for direction in ("i2t", "t2i"):
            for metric, values in result[direction].items():
                assert values[side] == pytest.approx(np.mean([summarize(run[direction])[metric] for run in runs]))


def test_the_interval_is_that_of_the_mean_of_paired_differences() -> None:
    random = np.random.default_rng(3)
    ours, theirs = ranked(random.integers(1, 3, 900)), ranked(random.integers(1, 4, 900))
    differences = 100.0 * ((ours["i2t"].ranks == 1).astype(float) - (theirs["i2t"].ranks == 1))
    half_width = 1.96 * differences.std() / 30
    result = paired_bootstrap([ours], [theirs], resamples=3000, seed=0)["i2t"]["R@1"]
    assert result["low"] == pytest.approx(differences.mean() - half_width, abs=0.5)
    assert result["high"] == pytest.approx(differences.mean() + half_width, abs=0.5)


def test_items_that_are_hard_for_both_models_do_not_widen_the_interval() -> None:
    hard = np.random.default_rng(0).integers(0, 2, 300).astype(bool)
    ours = np.where(hard, 40, 1)
    theirs = np.where(np.arange(300) < 6, 40, ours)
    result = paired_bootstrap([ranked(ours)], [ranked(theirs)], resamples=1000, seed=0)["i2t"]["R@1"]
    unpaired = 2 * 1.96 * 100 * np.sqrt(2 * 0.25 / 300)
    assert result["high"] - result["low"] < unpaired / 4


@pytest.mark.slow
def test_p_is_about_uniform_if_neither_model_is_better() -> None:
    random = np.random.default_rng(0)
    pairs = [[ranked(random.integers(1, 20, 80)) for _ in range(2)] for _ in range(150)]
    p = [paired_bootstrap([a], [b], resamples=99, seed=s)["rsum"]["p"] for s, (a, b) in enumerate(pairs)]
    for level in (0.1, 0.3, 0.5, 0.8):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 150))


def test_runs_that_disagree_widen_the_interval() -> None:
    base = ranked(np.random.default_rng(0).integers(1, 12, 200))
    better, worse = (ranked(np.clip(base["i2t"].ranks + shift, 1, 50)) for shift in (-3, 3))
    equal = paired_bootstrap([base] * 4, [base] * 4, resamples=300, seed=0)["rsum"]
    mixed = paired_bootstrap([better, worse, better, worse], [base] * 4, resamples=300, seed=0)["rsum"]
    single = paired_bootstrap([better], [base], resamples=300, seed=0)["rsum"]
    assert equal["high"] - equal["low"] == 0
    assert mixed["high"] - mixed["low"] > 2 * (single["high"] - single["low"])
    assert single["p"] < 0.05 < mixed["p"]


def test_one_item_gives_an_interval_of_no_width() -> None:
    result = paired_bootstrap([ranked([1])], [ranked([7])], resamples=9, seed=0)["i2t"]
    assert (result["R@5"]["low"], result["R@5"]["high"]) == (100, 100)
    assert result["R@10"]["p"] == 1


def test_draws_repeat_with_their_seed() -> None:
    random = np.random.default_rng(5)
    pair = [noisy(random, 1)], [noisy(random, 1.2)]
    first = paired_bootstrap(*pair, resamples=40, seed=1)
    assert first == paired_bootstrap(*pair, resamples=40, seed=1)
    assert first != paired_bootstrap(*pair, resamples=40, seed=2)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([], [], "in pairs, not 0 with 0"),
        ([ranked([1])] * 2, [ranked([1])], "in pairs, not 2 with 1"),
        ([ranked([1, 2])], [ranked([1])], "different queries or candidates"),
        ([ranked([1])], [{"t2i": ranked([1])["t2i"]}], "directions differ: t2i and i2t, t2i"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(ours: list[Run], theirs: list[Run], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(ours, theirs, resamples=5, seed=0)
