"""Measurements as files: metrics for DVC and the gate, every query's rank, recalls for plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cots.data.manifest import write_table
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metrics import RECALL_KS
from cots.evaluation.query_table import SCHEMA
from cots.evaluation.retrieval import RetrievalResult, query_rows
from cots.flatten import flatten


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One model on one target.

    Attributes:
        target: what is retrieved, `image-text` or `video-text`.
        finetuned: for this target; otherwise pre-trained only and asked without any example ("zero-shot").
        digest: of the weights.
        embedded: the split under this model.
        measured: retrieval on it.
    """

    target: str
    finetuned: bool
    digest: str
    embedded: EmbeddedSplit
    measured: RetrievalResult

    @property
    def key(self) -> str:
        """Its place in `metrics.json`."""
        return self.target if self.finetuned else f"pretrained/{self.target}"


def write_queries(folder: Path, evaluated: Sequence[Evaluated]) -> None:
    """Write `<target>.parquet`, a row a query of the fine-tuned model, and `recalls.csv` of all models."""
    folder.mkdir(parents=True, exist_ok=True)
    for model in evaluated:
        if model.finetuned:
            write_query_table(folder / f"{model.target}.parquet", model.embedded, model.measured)
    recalls = pd.DataFrame([row for model in evaluated for row in _recalls(model)])
    recalls.to_csv(folder / "recalls.csv", index=False)


def write_query_table(path: Path, embedded: EmbeddedSplit, measured: RetrievalResult) -> None:
    """Write a row a query: what `cots compare` holds two models against each other by."""
    write_table(path, query_rows(embedded, measured), SCHEMA)


def flat(values: dict[str, Any]) -> dict[str, float]:
    """Nested figures by dotted name, without the `@` that MLflow refuses: {"image-text.i2t.R1": 31.2, ...}."""
    return {name.replace("@", ""): float(value) for name, value in flatten(values).items()}


def _recalls(model: Evaluated) -> list[dict[str, object]]:
    metrics = model.measured.metrics
    return [
        {
            "model": model.key,
            "direction": name,
            "k": k,
            "recall": metrics[name][f"R@{k}"],
            "chance": metrics["chance"][name][f"R@{k}"],
        }
        for name in model.measured.directions
        for k in RECALL_KS
    ]
