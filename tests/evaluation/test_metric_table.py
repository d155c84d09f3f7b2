"""A metric is one record: what is appended to the table appears wherever scores are computed or shown."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_normalized_dcg

from cots.cli.tables import retrieval_table
from cots.config.params import Params
from cots.evaluation import metric_table
from cots.evaluation.classification import Classes, evaluate_classification
from cots.evaluation.comparison import compare_query_tables
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metric_table import Metric, chance_level, summarize
from cots.evaluation.metrics import RankedQueries
from cots.evaluation.retrieval import RetrievalResult, evaluate_retrieval, query_rows
from cots.registry.cards import CardContext, model_card
from cots.report.page import Report, ResultsTable, Table, write_page

PROJECT = Path(__file__).parents[2]


IDEAL_GAINS = np.cumsum(1 / np.log2(np.arange(2, 12)))  # if the first 1, 2, ... 10 candidates are right


def gain_by_chance(queries: RankedQueries) -> float:
    expected = queries.relevant / queries.candidates * IDEAL_GAINS[min(queries.candidates, 10) - 1]
    return float(np.mean(expected / IDEAL_GAINS[np.minimum(queries.relevant, 10) - 1]))


NDCG = Metric(
    name="nDCG@10",
    title="nDCG@10",
    description="Gain of the first 10 candidates, discounted by rank, relative to the best order.",
    values=lambda queries: (
        queries.sum_over_right(lambda ranks: (ranks <= 10) / np.log2(ranks + 1))
        / IDEAL_GAINS[np.minimum(queries.relevant, 10) - 1]
    ),
    chance=gain_by_chance,
    needs_right_ranks=True,
    hub_name="ndcg_at_10",
)


@pytest.fixture(autouse=True)
def _with_ndcg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_table, "METRICS", (*metric_table.METRICS, NDCG))


def unit_rows(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rows = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture
def embedded() -> EmbeddedSplit:
    """30 images with two captions each."""
    ids, captions = (tuple(f"{kind}{number}" for number in range(count)) for kind, count in (("id", 30), ("text", 60)))
    return EmbeddedSplit(
        ids=ids,
        captions=captions,
        text_to_item=np.repeat(np.arange(30), 2),
        items=unit_rows(0, 30),
        texts=unit_rows(1, 60),
        item_seconds=1.0,
        text_seconds=1.0,
    )


@pytest.fixture
def result(embedded: EmbeddedSplit) -> RetrievalResult:
    return evaluate_retrieval(embedded, media="image", folds=1, resamples=20, seed=0)


@pytest.fixture
def measured(result: RetrievalResult) -> dict[str, Any]:
    """What stage `evaluate` writes about one target."""
    return result.metrics


def test_it_is_among_the_scores(embedded: EmbeddedSplit, measured: dict[str, Any]) -> None:
    similarity = torch.from_numpy(embedded.items @ embedded.texts.T)
    right = torch.arange(30)[:, None] == torch.from_numpy(embedded.text_to_item)
    for direction, scores, targets in (("i2t", similarity, right), ("t2i", similarity.T, right.T)):
        expected = [retrieval_normalized_dcg(*query, top_k=10) for query in zip(scores, targets, strict=True)]
        assert measured[direction]["nDCG@10"] == pytest.approx(100 * float(np.mean(expected)), abs=1e-3)


@pytest.mark.parametrize(("relevant", "candidates"), [(1, 1), (1, 6), (2, 5), (5, 6), (11, 12), (2, 14)])
def test_its_chance_level_is_the_mean_over_all_orders(relevant: int, candidates: int) -> None:
    orders = np.array(list(itertools.combinations(range(1, candidates + 1), relevant)))
    queries = RankedQueries(
        orders[:, 0],
        np.arange(len(orders)),
        np.full(len(orders), relevant),
        candidates,
        np.zeros(len(orders)),
        orders.ravel(),
    )
    assert chance_level(queries)["nDCG@10"] == pytest.approx(summarize(queries)["nDCG@10"])


def test_it_has_an_interval_around_it(measured: dict[str, Any]) -> None:
    for direction in ("i2t", "t2i"):
        interval = measured["interval"][direction]["nDCG@10"]
        assert interval["low"] < measured[direction]["nDCG@10"] < interval["high"]


def test_two_models_are_compared_by_it(embedded: EmbeddedSplit, result: RetrievalResult) -> None:
    table = pd.DataFrame(query_rows(embedded, result))
    worse = table.assign(rank=table["rank"] + 1)
    worse["right_ranks"] = [[rank + 1 for rank in ranks] for ranks in table["right_ranks"]]
    scores = compare_query_tables([table], [worse], resamples=20, seed=0)
    for direction in ("i2t", "t2i"):
        difference = scores[direction]["nDCG@10"]
        assert difference["challenger"] == pytest.approx(result.metrics[direction]["nDCG@10"], abs=1e-4)
        assert difference["difference"] == pytest.approx(difference["challenger"] - difference["champion"])
        assert difference["low"] > 0


def test_a_table_of_release_0_1_is_compared_by_the_other_metrics(
    embedded: EmbeddedSplit, result: RetrievalResult
) -> None:
    table = pd.DataFrame(query_rows(embedded, result))
    old = table.drop(columns="right_ranks")
    both, mixed, neither = (
        compare_query_tables([challenger], [champion], resamples=5, seed=0)
        for challenger, champion in ((table, table), (table, old), (old, old))
    )
    assert mixed == neither
    for direction in ("i2t", "t2i"):
        assert both[direction].keys() - mixed[direction].keys() == {"nDCG@10"}
        assert both[direction]["mAP@R"] == mixed[direction]["mAP@R"]


def test_rsum_is_the_sum_of_the_recalls_alone(measured: dict[str, Any]) -> None:
    recalls = [measured[direction][f"R@{k}"] for direction in ("i2t", "t2i") for k in (1, 5, 10)]
    assert measured["rsum"] == pytest.approx(sum(recalls), abs=1e-5)
    assert measured["interval"]["rsum"]["low"] <= sum(recalls) <= measured["interval"]["rsum"]["high"]


def test_a_table_in_a_terminal_has_its_column(measured: dict[str, Any]) -> None:
    head, row, by_chance, *_ = retrieval_table({"mine": measured}).splitlines()
    assert head.split()[-1] == "nDCG@10"
    assert row.split()[-1] == f"{measured['t2i']['nDCG@10']:.1f}"
    assert by_chance.split()[-1] == f"{measured['chance']['t2i']['nDCG@10']:.1f}"


def test_its_cells_are_empty_for_older_metrics(measured: dict[str, Any]) -> None:
    for direction in ("i2t", "t2i"):
        del measured[direction]["nDCG@10"], measured["chance"][direction]["nDCG@10"]
    head, row, *_ = retrieval_table({"mine": measured}).splitlines()
    assert head.split()[-1] == "nDCG@10"
    assert row.split()[-1] == f"{measured['t2i']['MdR']:.1f}"


def test_the_report_shows_it_with_its_interval_and_says_which_way_is_better(
    measured: dict[str, Any], tmp_path: Path
) -> None:
    empty = Table("", ("",), [])
    report = Report(
        title="",
        about="",
        verdicts=[],
        results=[ResultsTable("Images", {"i2t": "Image to text", "t2i": "Text to image"}, {"Mine": measured})],
        folds=[],
        further=[],
        notes=[],
        speed=empty,
        galleries=[],
        attention_maps=[],
        runs={},
        dvae=None,
        filter=None,
        data=[],
        lineage=empty,
        params="",
    )
    write_page(tmp_path / "index.html", report)
    html = (tmp_path / "index.html").read_text(encoding="utf8")
    assert ">nDCG@10</th>" in html
    assert "discounted by rank, relative to the best order. Higher is better." in html
    assert "Median rank of the best right candidate. Lower is better." in html
    interval = measured["interval"]["t2i"]["nDCG@10"]
    assert f"{measured['t2i']['nDCG@10']:.1f}<small>{interval['low']:.1f}–{interval['high']:.1f}</small>" in html


def card_context(measured: dict[str, Any]) -> CardContext:
    return CardContext(
        target="image-text",
        params=Params.load(PROJECT / "params.yaml").dump_packaged(),
        metrics={"image-text": measured},
        validation={},
        manifest=pd.DataFrame(),
        encoder="",
        data="",
        parameters="",
    )


def test_the_model_card_states_it_to_people_and_to_the_hub(measured: dict[str, Any]) -> None:
    card = model_card(card_context(measured))
    assert "type: ndcg_at_10" in card
    interval, by_chance = measured["interval"]["t2i"]["nDCG@10"], measured["chance"]["t2i"]["nDCG@10"]
    bounds = f"{interval['low']:.1f} to {interval['high']:.1f}"
    assert f"| text to image | nDCG@10 | {measured['t2i']['nDCG@10']:.1f} | {bounds} | {by_chance:.1f} |" in card
    assert "mAP@R, nDCG@10 in per cent" in card
    assert "classification" not in card


def test_the_model_card_states_zero_shot_classification_if_it_was_measured(measured: dict[str, Any]) -> None:
    labels, found = ["a", "b"] * 15, Classes(names=("a", "b", "c"), embeddings=unit_rows(2, 3))
    scores = evaluate_classification(unit_rows(0, 30), labels, found, resamples=20, seed=0)
    card = model_card(card_context(measured | {"classification": scores}))
    assert "type: mean_per_class_recall" in card
    assert "type: zero-shot-image-classification" in card
    bounds = f"{scores['interval']['acc1']['low']:.1f} to {scores['interval']['acc1']['high']:.1f}"
    assert f"| zero-shot classification | Top-1 | {scores['acc1']:.1f} | {bounds} | 33.3 |" in card
