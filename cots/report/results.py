"""Writes results of evaluation to files: query tables for comparisons and the gate, recalls for plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cots.data.manifest import write_table
from cots.evaluation.calibration import Calibration
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metrics import RECALL_KS
from cots.evaluation.query_table import SCHEMA
from cots.evaluation.retrieval import RetrievalResult, query_rows
from cots.evaluation.slices import SLICE_COLUMNS
from cots.flatten import flatten
from cots.rounding import DIGITS


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEvaluation:
    """Evaluation of one model on one target.

    Attributes:
        target: `image-text` or `video-text`.
        finetuned: whether the model was fine-tuned for the target; otherwise it is only pre-trained ("zero-shot").
        digest: of the weights.
        embedded: the split, embedded by the model.
        result: retrieval on the split.
        slices: `recall_rows` of the split.
        calibration: of the scores of texts; None if they are too few.
        classification: `evaluate_classification` of the split; None if no column holds classes.
        class_head: `evaluate_class_head` of the split; None if the model has no classification head.
    """

    target: str
    finetuned: bool
    digest: str
    embedded: EmbeddedSplit
    result: RetrievalResult
    slices: Sequence[Mapping[str, Any]]
    calibration: Calibration | None
    classification: dict[str, Any] | None
    class_head: dict[str, Any] | None = None

    @property
    def metrics(self) -> dict[str, Any]:
        """The model's part of `metrics.json`."""
        calibration = self.calibration and self.calibration.summary()
        others = {"calibration": calibration, "classification": self.classification, "class_head": self.class_head}
        return self.result.metrics | {name: values for name, values in others.items() if values}

    @property
    def key(self) -> str:
        """Key in `metrics.json`."""
        return self.target if self.finetuned else f"pretrained/{self.target}"


def headline_metrics(evaluations: Sequence[ModelEvaluation]) -> dict[str, dict[str, float]]:
    """What tells two experiments apart, by target: RSUM, R@1 and R@10 of its last model, the best one, in per cent."""
    best = {evaluation.target: evaluation.result for evaluation in evaluations}
    return {
        target: {"RSUM": result.metrics["rsum"]}
        | {f"{name} R@{k}": result.metrics[name][f"R@{k}"] for name in reversed(result.directions) for k in (1, 10)}
        for target, result in best.items()
    }


def write_queries(folder: Path, evaluations: Sequence[ModelEvaluation]) -> None:
    """Write query tables `<target>.parquet` of fine-tuned models, and `recalls.csv` and `slices.csv` of all models."""
    folder.mkdir(parents=True, exist_ok=True)
    for evaluation in evaluations:
        if evaluation.finetuned:
            write_query_table(folder / f"{evaluation.target}.parquet", evaluation.embedded, evaluation.result)
    recalls = pd.DataFrame([row for evaluation in evaluations for row in _recall_rows(evaluation)])
    recalls.to_csv(folder / "recalls.csv", index=False)
    slices = [{"model": evaluation.key, **row} for evaluation in evaluations for row in evaluation.slices]
    pd.DataFrame(slices, columns=["model", *SLICE_COLUMNS]).round(DIGITS).to_csv(folder / "slices.csv", index=False)


def write_query_table(path: Path, embedded: EmbeddedSplit, result: RetrievalResult) -> None:
    """Write a query table: one row per query, the input of `cots compare`."""
    write_table(path, query_rows(embedded, result), SCHEMA)


def flatten_for_mlflow(values: dict[str, Any]) -> dict[str, float]:
    """Nested metrics by dotted name, without `@`, which MLflow refuses: {"image-text.i2t.R1": 31.2, ...}."""
    return {name.replace("@", ""): float(value) for name, value in flatten(values).items()}


def _recall_rows(evaluation: ModelEvaluation) -> list[dict[str, object]]:
    metrics = evaluation.result.metrics
    return [
        {
            "model": evaluation.key,
            "direction": name,
            "k": k,
            "recall": metrics[name][f"R@{k}"],
            "chance": metrics["chance"][name][f"R@{k}"],
        }
        for name in evaluation.result.directions
        for k in RECALL_KS
    ]
