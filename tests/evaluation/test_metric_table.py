"""A metric is one record: what is added to the table is found wherever scores are computed or shown."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cots.cli.tables import retrieval_table
from cots.config.params import Params
from cots.evaluation import metric_table
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metric_table import Metric, chance_level, summarize
from cots.evaluation.metrics import RankedQueries, rank_queries
from cots.evaluation.paired import paired_bootstrap
from cots.evaluation.retrieval import evaluate_retrieval
from cots.registry.cards import CardContext, model_card
from cots.report.page import Report, ResultsTable, Table, write_page

PROJECT = Path(__file__).parents[2]


def one_right_candidate(direction: RankedQueries) -> float:
    """The mean of 1/rank over all ranks."""
    return float(np.mean(1 / np.arange(1, direction.candidates + 1)))


MRR = Metric(
    name="MRR",
    title="Mean reciprocal rank",
    description="Mean of 1/rank of the best-placed right candidate.",
    values=lambda direction: 1 / direction.ranks,
    chance=one_right_candidate,
    hub_name="mean_reciprocal_rank",
)


@pytest.fixture(autouse=True)
def _with_mrr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_table, "METRICS", (*metric_table.METRICS, MRR))


def units(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rows = np.random.default_rng(seed).normal(size=(30, 4)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture
def directions() -> dict[str, RankedQueries]:
    return dict(zip(("i2t", "t2i"), rank_queries(units(0), units(1), np.arange(30)), strict=True))


@pytest.fixture
def measured() -> dict[str, Any]:
    """What stage `evaluate` writes of one target."""
    ids, captions = (tuple(f"{kind}{number}" for number in range(30)) for kind in ("id", "caption"))
    embedded = EmbeddedSplit(
        ids=ids,
        captions=captions,
        text_to_item=np.arange(30),
        items=units(0),
        texts=units(1),
        item_seconds=1.0,
        text_seconds=1.0,
    )
    return evaluate_retrieval(embedded, media="image", folds=1, resamples=20, seed=0).metrics


def test_it_is_among_the_scores_and_what_chance_gives(directions: dict[str, RankedQueries]) -> None:
    for direction in directions.values():
        assert summarize(direction)["MRR"] == pytest.approx(100 * np.mean(1 / direction.ranks))
        assert chance_level(direction)["MRR"] == pytest.approx(100 * sum(1 / k for k in range(1, 31)) / 30)


def test_it_has_an_interval_around_it(measured: dict[str, Any]) -> None:
    for way in ("i2t", "t2i"):
        interval = measured["interval"][way]["MRR"]
        assert interval["low"] < measured[way]["MRR"] < interval["high"]


def test_two_models_are_compared_by_it(directions: dict[str, RankedQueries]) -> None:
    worse = {way: RankedQueries(one.ranks + 1, *direction_but_ranks(one)) for way, one in directions.items()}
    difference = paired_bootstrap([directions], [worse], resamples=20, seed=0)["t2i"]["MRR"]
    assert difference["difference"] == pytest.approx(difference["challenger"] - difference["champion"])
    assert difference["low"] > 0


def direction_but_ranks(one: RankedQueries) -> tuple[Any, ...]:
    return one.text_to_item, one.relevant, one.candidates, one.average_precision


def test_the_sum_of_recalls_is_of_recalls_alone(measured: dict[str, Any]) -> None:
    recalls = [measured[way][f"R@{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10)]
    assert measured["rsum"] == pytest.approx(sum(recalls), abs=1e-5)
    assert measured["interval"]["rsum"]["low"] <= sum(recalls) <= measured["interval"]["rsum"]["high"]


def test_a_table_in_a_terminal_has_its_column(measured: dict[str, Any]) -> None:
    head, row, by_chance, *_ = retrieval_table({"mine": measured}).splitlines()
    assert head.split()[-1] == "MRR"
    assert row.split()[-1] == f"{measured['t2i']['MRR']:.1f}"
    assert by_chance.split()[-1] == f"{measured['chance']['t2i']['MRR']:.1f}"


def test_figures_that_are_older_than_it_leave_its_cells_empty(measured: dict[str, Any]) -> None:
    for way in ("i2t", "t2i"):
        del measured[way]["MRR"], measured["chance"][way]["MRR"]
    head, row, *_ = retrieval_table({"mine": measured}).splitlines()
    assert head.split()[-1] == "MRR"
    assert row.split()[-1] == f"{measured['t2i']['MdR']:.1f}"


def test_the_report_shows_it_with_its_interval_and_says_which_way_is_better(
    measured: dict[str, Any], tmp_path: Path
) -> None:
    nothing = Table("", ("",), [])
    report = Report(
        title="",
        about="",
        results=[ResultsTable("Images", {"i2t": "Image to text", "t2i": "Text to image"}, {"Mine": measured})],
        notes=[],
        speed=nothing,
        galleries=[],
        attention_maps=[],
        runs={},
        dvae=None,
        noise=None,
        data=[],
        lineage=nothing,
        params="",
    )
    write_page(tmp_path / "index.html", report)
    html = (tmp_path / "index.html").read_text(encoding="utf8")
    assert ">Mean reciprocal rank</th>" in html
    assert "Mean of 1/rank of the best-placed right candidate. Higher is better." in html
    assert "Median rank of the best-placed right candidate. Lower is better." in html
    interval = measured["interval"]["t2i"]["MRR"]
    assert f"{measured['t2i']['MRR']:.1f}<small>{interval['low']:.1f}–{interval['high']:.1f}</small>" in html


def test_the_model_card_states_it_to_people_and_to_the_hub(measured: dict[str, Any]) -> None:
    facts = CardContext(
        target="image-text",
        params=Params.load(PROJECT / "params.yaml").recipe(),
        metrics={"image-text": measured},
        validation={},
        manifest=pd.DataFrame(),
        encoder="",
        data="",
        parameters="",
    )
    card = model_card(facts)
    assert "type: mean_reciprocal_rank" in card
    interval, by_chance = measured["interval"]["t2i"]["MRR"], measured["chance"]["t2i"]["MRR"]
    bounds = f"{interval['low']:.1f} to {interval['high']:.1f}"
    assert f"| text to image | MRR | {measured['t2i']['MRR']:.1f} | {bounds} | {by_chance:.1f} |" in card
    assert "mAP@R, MRR in per cent" in card
