"""The paired bootstrap against closed forms and the behaviour that a test of significance owes."""

from typing import Any

import numpy as np
import pytest

from cots.evaluation.metric_table import summarize
from cots.evaluation.metrics import RankedQueries, rank_queries, rsum
from cots.evaluation.paired import paired_bootstrap

Run = dict[str, RankedQueries]


def ranked(ranks: list[int] | np.ndarray[Any, Any]) -> Run:
    """Both directions with these ranks, a caption a picture."""
    rows = np.arange(len(ranks))
    way = RankedQueries(np.array(ranks), rows, np.ones(len(rows), np.int64), 50, 1.0 / np.array(ranks))
    return {"i2t": way, "t2i": way}


def noisy(random: np.random.Generator, noise: float, pictures: int = 40, captions: int = 3) -> Run:
    owners = np.repeat(np.arange(pictures), captions)
    items = np.random.default_rng(0).normal(size=(pictures, 8))
    ways = rank_queries(items, items[owners] + noise * random.normal(size=(len(owners), 8)), owners)
    return dict(zip(("i2t", "t2i"), ways, strict=True))


def leaves(found: dict[str, Any]) -> list[dict[str, float]]:
    return [found["rsum"], *(values for way in ("i2t", "t2i") for values in found[way].values())]


def test_a_model_does_not_differ_from_itself() -> None:
    run = noisy(np.random.default_rng(1), noise=1)
    for runs in ([run], [run, noisy(np.random.default_rng(2), noise=1)]):
        for values in leaves(paired_bootstrap(runs, runs, resamples=50, seed=0)):
            assert values["difference"] == values["low"] == values["high"] == 0
            assert values["p"] == 1


def test_a_model_that_is_better_on_every_query_is_told_apart_as_surely_as_the_draws_allow() -> None:
    found = paired_bootstrap([ranked([1] * 9)], [ranked([11] * 9)], resamples=200, seed=0)
    assert found["rsum"] == pytest.approx(
        {"challenger": 600, "champion": 0, "difference": 600, "low": 600, "high": 600, "p": 2 / 201}
    )
    assert found["i2t"]["mean_rank"]["difference"] == -10
    assert all(values["p"] < 2 / 200 for values in leaves(found))


def test_to_swap_the_models_turns_the_sign_and_nothing_else() -> None:
    random = np.random.default_rng(1)
    good, bad = ([noisy(random, noise) for _ in range(3)] for noise in (1.0, 1.6))
    there, back = (paired_bootstrap(*pair, resamples=300, seed=4) for pair in ((good, bad), (bad, good)))
    for one, other in zip(leaves(there), leaves(back), strict=True):
        mirrored = {"challenger": "champion", "champion": "challenger", "difference": "difference"}
        assert one["p"] == other["p"]
        assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))
        sign = {"difference": -1}
        assert all(one[a] == pytest.approx(sign.get(a, 1) * other[b]) for a, b in mirrored.items())


def test_the_scores_shown_are_the_means_over_the_runs() -> None:
    random = np.random.default_rng(2)
    ours, theirs = ([noisy(random, noise) for _ in range(2)] for noise in (1.0, 1.3))
    found = paired_bootstrap(ours, theirs, resamples=20, seed=0)
    for side, runs in (("challenger", ours), ("champion", theirs)):
        assert found["rsum"][side] == pytest.approx(np.mean([rsum(run) for run in runs]))
        for way in ("i2t", "t2i"):
            for score, values in found[way].items():
                assert values[side] == pytest.approx(np.mean([summarize(run[way])[score] for run in runs]))


def test_the_interval_is_that_of_the_mean_of_paired_differences() -> None:
    random = np.random.default_rng(3)
    ours, theirs = ranked(random.integers(1, 3, 900)), ranked(random.integers(1, 4, 900))
    apart = 100.0 * ((ours["i2t"].ranks == 1).astype(float) - (theirs["i2t"].ranks == 1))
    half = 1.96 * apart.std() / 30
    found = paired_bootstrap([ours], [theirs], resamples=3000, seed=0)["i2t"]["R@1"]
    assert found["low"] == pytest.approx(apart.mean() - half, abs=0.5)
    assert found["high"] == pytest.approx(apart.mean() + half, abs=0.5)


def test_what_both_models_find_hard_does_not_widen_the_interval() -> None:
    hard = np.random.default_rng(0).integers(0, 2, 300).astype(bool)
    ours = np.where(hard, 40, 1)
    theirs = np.where(np.arange(300) < 6, 40, ours)
    found = paired_bootstrap([ranked(ours)], [ranked(theirs)], resamples=1000, seed=0)["i2t"]["R@1"]
    unpaired = 2 * 1.96 * 100 * np.sqrt(2 * 0.25 / 300)
    assert found["high"] - found["low"] < unpaired / 4


@pytest.mark.slow
def test_p_is_about_uniform_where_no_model_is_better() -> None:
    random = np.random.default_rng(0)
    pairs = [[ranked(random.integers(1, 20, 80)) for _ in range(2)] for _ in range(150)]
    p = [paired_bootstrap([a], [b], resamples=99, seed=s)["rsum"]["p"] for s, (a, b) in enumerate(pairs)]
    for level in (0.1, 0.3, 0.5, 0.8):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 150))


def test_runs_that_disagree_widen_the_interval_of_what_is_pooled() -> None:
    base = ranked(np.random.default_rng(0).integers(1, 12, 200))
    better, worse = (ranked(np.clip(base["i2t"].ranks + shift, 1, 50)) for shift in (-3, 3))
    steady = paired_bootstrap([base] * 4, [base] * 4, resamples=300, seed=0)["rsum"]
    torn = paired_bootstrap([better, worse, better, worse], [base] * 4, resamples=300, seed=0)["rsum"]
    one = paired_bootstrap([better], [base], resamples=300, seed=0)["rsum"]
    assert steady["high"] - steady["low"] == 0
    assert torn["high"] - torn["low"] > 2 * (one["high"] - one["low"])
    assert one["p"] < 0.05 < torn["p"]


def test_one_item_is_enough_and_tells_nothing_of_spread() -> None:
    found = paired_bootstrap([ranked([1])], [ranked([7])], resamples=9, seed=0)["i2t"]
    assert (found["R@5"]["low"], found["R@5"]["high"]) == (100, 100)
    assert found["R@10"]["p"] == 1


def test_draws_repeat_with_their_seed() -> None:
    random = np.random.default_rng(5)
    pair = [noisy(random, 1)], [noisy(random, 1.2)]
    first = paired_bootstrap(*pair, resamples=40, seed=1)
    assert first == paired_bootstrap(*pair, resamples=40, seed=1)
    assert first != paired_bootstrap(*pair, resamples=40, seed=2)


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ([], [], "in pairs, not 0 with 0"),
        ([ranked([1])] * 2, [ranked([1])], "in pairs, not 2 with 1"),
        ([ranked([1, 2])], [ranked([1])], "not asked the same queries"),
        ([ranked([1])], [{"t2i": ranked([1])["t2i"]}], "directions differ: t2i and i2t, t2i"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(ours: list[Run], theirs: list[Run], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        paired_bootstrap(ours, theirs, resamples=5, seed=0)
