"""The filter's figures by hand, and their faults."""

import numpy as np
import pandas as pd
import pytest

from cots.report.noise import filter_figures, known_pairs


def pairs(score: list[float], seen: list[int], dropped: list[int], wrong: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"score": score, "seen": seen, "dropped": dropped, "wrong": wrong})


def test_lift_is_the_share_of_wrong_drops_over_the_share_of_wrong_pairs_seen() -> None:
    figures = filter_figures(pairs([0.1, 0.2, 0.3, 0.4], [2, 2, 4, 12], [1, 0, 0, 1], [True, True, False, False]))
    assert figures == {
        "drops": 2,
        "wrong_share": 0.5,
        "chance": 0.2,
        "lift": 2.5,
        "recall": 0.5,
        "separation": 1.0,
    }


def test_a_filter_that_drops_at_random_has_a_lift_of_one() -> None:
    random = np.random.default_rng(0)
    size = 20_000
    wrong, dropped = random.random(size) < 0.1, (random.random(size) < 0.2).astype(int)
    table = pd.DataFrame({"score": random.random(size), "seen": 1, "dropped": dropped, "wrong": wrong})
    figures = filter_figures(table)
    assert figures["lift"] == pytest.approx(1, abs=0.1)
    assert figures["separation"] == pytest.approx(0.5, abs=0.02)
    assert figures["recall"] == pytest.approx(0.2, abs=0.03)


def test_without_a_drop_there_is_no_lift() -> None:
    figures = filter_figures(pairs([0.1, 0.2], [1, 1], [0, 0], [True, False]))
    assert (figures["drops"], figures["lift"], figures["recall"]) == (0, 0, 0)


def test_separation_equals_a_count_over_all_couples() -> None:
    random = np.random.default_rng(1)
    score, wrong = random.integers(0, 9, 60).astype(float), random.random(60) < 0.3
    below = [(a < b) + (a == b) / 2 for a in score[wrong] for b in score[~wrong]]
    table = pd.DataFrame({"score": score, "seen": 1, "dropped": 0, "wrong": wrong})
    assert filter_figures(table)["separation"] == pytest.approx(np.mean(below))


@pytest.mark.parametrize("wrong", [True, False])
def test_where_all_or_none_are_wrong_there_is_nothing_to_tell_apart(wrong: bool) -> None:
    with pytest.raises(ValueError, match="nothing to tell apart"):
        filter_figures(pairs([0.1, 0.2], [1, 1], [0, 1], [wrong, wrong]))


def test_pairs_find_their_caption_by_its_number() -> None:
    manifest = pd.DataFrame(
        {"id": ["a", "b"], "captions": [["a0", "a1"], ["b0"]], "wrong": [np.array([False, True]), np.array([False])]}
    )
    seen = pd.DataFrame({"id": ["b", "a"], "caption": [0, 1], "score": [0.9, 0.1], "seen": [1, 2], "dropped": [0, 2]})
    known = known_pairs(seen, manifest)
    assert known[["id", "text", "wrong"]].values.tolist() == [["a", "a1", True], ["b", "b0", False]]
