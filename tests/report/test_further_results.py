"""Tables of classification, slices and calibration from the evaluation of two models."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cots.evaluation.calibration import calibrate
from cots.evaluation.classification import Classes, evaluate_classification
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.retrieval import RetrievalResult
from cots.evaluation.slices import SLICE_COLUMNS
from cots.report.further_results import further_tables
from cots.report.results import ModelEvaluation


def model(*, right: int, scores: np.ndarray) -> ModelEvaluation:
    """A model that gives `right` of four items their class."""
    items, classes = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
    labels = ["abcd"[row if row < right else (row + 1) % 4] for row in range(4)]
    found = Classes(names=tuple("abcd"), embeddings=classes)
    rows = [("t2i", "place", "sea", 7, f"R@{k}", 10.0 * k, 5.0, 100.0, 1.0) for k in (1, 5, 10)]
    return ModelEvaluation(
        target="image-text",
        finetuned=True,
        digest="",
        embedded=EmbeddedSplit(
            ids=(),
            captions=(),
            text_to_item=np.zeros(0, np.int64),
            items=items,
            texts=items,
            item_seconds=1,
            text_seconds=1,
        ),
        result=RetrievalResult(directions={}, metrics={"rsum": 1.0}),
        slices=[dict(zip(SLICE_COLUMNS, row, strict=True)) for row in rows],
        calibration=calibrate(scores, scores > 0.5, np.arange(len(scores))),
        classification=evaluate_classification(items, labels, found, resamples=5, seed=0),
    )


@pytest.fixture
def models() -> dict[str, ModelEvaluation]:
    return {
        "Before": model(right=1, scores=np.linspace(0, 1, 60)),
        "After": model(right=4, scores=np.linspace(0.2, 1, 60)),
    }


def test_all_models_stand_below_chance_and_only_the_best_ones_slices(models: dict[str, ModelEvaluation]) -> None:
    classes, slices, calibration = further_tables(models)
    assert [row[:2] for row in classes.rows[:1]] == [["Chance", "25.0"]]
    assert [str(row[1]).split()[0] for row in classes.rows[1:]] == ["25.0", "100.0"]
    assert slices.rows == [
        ["place: sea", "text to image", 7, "10.0 (5.0–100.0)", "50.0 (5.0–100.0)", "100.0 (5.0–100.0)"]
    ]
    assert calibration.rows[0][0] == "0.932 to 1.000"  # of the last model, highest scores first
    assert calibration.rows[0][3] == 100
    assert calibration.rows[-1][3] == 0


def test_the_heads_of_all_models_stand_below_the_most_frequent_class(models: dict[str, ModelEvaluation]) -> None:
    interval = {name: {"low": 20.0, "high": 80.0} for name in ("accuracy", "macro_f1")}
    by_input = {
        given: {"accuracy": 50.0, "macro_f1": 40.0, "interval": interval} for given in ("image", "text", "both")
    }
    scores = by_input | {
        "most_frequent": {"accuracy": 30.0, "macro_f1": 11.5},
        "queries": {"items": 1200, "classes": 4},
    }
    models["After"] = replace(models["After"], class_head=scores)
    _, head, *_ = further_tables(models)
    assert head.caption.startswith("Image-text: the classification head by image, by text and by both, 1,200 items")
    assert head.rows[0] == ["Most frequent class", "", "30.0", "11.5"]
    assert head.rows[1:] == [["After", given, "50.0 (20.0–80.0)", "40.0 (20.0–80.0)"] for given in by_input]
    assert models["After"].metrics["class_head"] == scores


def test_metrics_hold_what_was_measured_and_nothing_else(models: dict[str, ModelEvaluation]) -> None:
    metrics: dict[str, Any] = models["After"].metrics
    assert set(metrics) == {"rsum", "calibration", "classification"}
    assert set(metrics["calibration"]) == {"intercept", "slope", "ece", "queries"}
    assert set(model(right=2, scores=np.ones(3)).metrics) == {"rsum", "classification"}
