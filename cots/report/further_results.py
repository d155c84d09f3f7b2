"""Tables of what is measured beside retrieval as a whole: classification."""

from collections.abc import Mapping
from typing import Any

from cots.evaluation.class_metrics import CLASS_METRICS
from cots.report.page import Table
from cots.report.results import ModelEvaluation


def further_tables(models: Mapping[str, ModelEvaluation]) -> list[Table]:
    """The tables of one target.

    Args:
        models: of the target, by name.
    """
    classified = {name: model.classification for name, model in models.items() if model.classification}
    return [
        *([_classification_table(list(models.values())[-1].target, classified)] if classified else []),
    ]


def _classification_table(target: str, models: Mapping[str, dict[str, Any]]) -> Table:
    """Chance and all models."""
    metrics = list(models.values())[-1]
    chance = ["Chance", *(f"{metrics['chance'][metric.name]:.1f}" for metric in CLASS_METRICS)]
    rows = [
        [name, *(_cell(of_model[metric.name], **of_model["interval"][metric.name]) for metric in CLASS_METRICS)]
        for name, of_model in models.items()
    ]
    return Table(
        f"{target.capitalize()}: zero-shot classification by prompts, {metrics['queries']['items']:,} items, "
        f"{metrics['queries']['classes']:,} classes; per cent, with 95 % intervals.",
        ("Model", *(metric.title for metric in CLASS_METRICS)),
        [chance, *rows],
    )


def _cell(score: float, low: float, high: float) -> str:
    return f"{score:.1f} ({low:.1f}–{high:.1f})"
