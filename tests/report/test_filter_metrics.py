"""Metrics of the filter against values computed by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cots.report.filter_metrics import filter_metrics, label_pairs
from cots.report.inline_images import InlineImage
from cots.report.sections import summarize_filter


def pairs(score: list[float], seen: list[int], dropped: list[int], wrong: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"score": score, "seen": seen, "dropped": dropped, "wrong": wrong})


def test_lift_is_the_fraction_of_wrong_drops_over_the_fraction_of_wrong_pairs_seen() -> None:
    metrics = filter_metrics(pairs([0.1, 0.2, 0.3, 0.4], [2, 2, 4, 12], [1, 0, 0, 1], [True, True, False, False]))
    assert metrics == {
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
    metrics = filter_metrics(table)
    assert metrics["lift"] == pytest.approx(1, abs=0.1)
    assert metrics["separation"] == pytest.approx(0.5, abs=0.02)
    assert metrics["recall"] == pytest.approx(0.2, abs=0.03)


def test_without_a_drop_there_is_no_lift() -> None:
    metrics = filter_metrics(pairs([0.1, 0.2], [1, 1], [0, 0], [True, False]))
    assert (metrics["drops"], metrics["lift"], metrics["recall"]) == (0, 0, 0)


def test_separation_is_a_fraction_of_all_couples() -> None:
    random = np.random.default_rng(1)
    score, wrong = random.integers(0, 9, 60).astype(float), random.random(60) < 0.3
    in_order = [(a < b) + (a == b) / 2 for a in score[wrong] for b in score[~wrong]]
    table = pd.DataFrame({"score": score, "seen": 1, "dropped": 0, "wrong": wrong})
    assert filter_metrics(table)["separation"] == pytest.approx(np.mean(in_order))


@pytest.mark.parametrize("wrong", [True, False])
def test_all_or_no_wrong_pairs_are_an_error(wrong: bool) -> None:
    with pytest.raises(ValueError, match="nothing to separate"):
        filter_metrics(pairs([0.1, 0.2], [1, 1], [0, 1], [wrong, wrong]))


def test_pairs_get_the_caption_of_their_number() -> None:
    manifest = pd.DataFrame(
        {"id": ["a", "b"], "captions": [["a0", "a1"], ["b0"]], "wrong": [np.array([False, True]), np.array([False])]}
    )
    seen = pd.DataFrame({"id": ["b", "a"], "caption": [0, 1], "score": [0.9, 0.1], "seen": [1, 2], "dropped": [0, 2]})
    labelled = label_pairs(seen, manifest)
    assert labelled[["id", "text", "wrong"]].values.tolist() == [["a", "a1", True], ["b", "b0", False]]


@pytest.mark.parametrize(("wrong", "measured"), [((True, True), False), ((False, False), False), ((True, False), True)])
def test_the_report_shows_suspects_whatever_is_known_of_the_captions(
    tmp_path: Path, wrong: tuple[bool, bool], measured: bool
) -> None:
    table = pairs([0.1, 0.2], [3, 3], [1, 0], [True, True]).drop(columns="wrong")
    table.assign(id=["a", "b"], caption=0).to_parquet(tmp_path / "pairs.parquet")
    manifest = pd.DataFrame({"id": ["a", "b"], "captions": [["x"], ["y"]], "wrong": [[flag] for flag in wrong]})
    image = InlineImage.of_frames([Image.new("RGB", (8, 8))], "x", side=8)
    results = summarize_filter(tmp_path / "pairs.parquet", manifest, lambda ids: dict.fromkeys(ids, image))
    assert (results.metrics is not None) == measured
    assert [suspect.text for suspect in results.suspects] == ["x", "y"]
