"""Tables of what is measured beside retrieval as a whole: classification, slices, calibration, languages."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cots.directions import LABELS
from cots.evaluation.class_head import HEAD_METRICS, INPUTS
from cots.evaluation.class_metrics import CLASS_METRICS
from cots.evaluation.metric_table import RECALLS
from cots.report.language_tables import language_tables
from cots.report.page import Table
from cots.report.results import ModelEvaluation


def further_tables(models: Mapping[str, ModelEvaluation]) -> list[Table]:
    """The tables of one target; those of slices, calibration and languages are about its last model, the best one.

    Args:
        models: of the target, by name.
    """
    best = list(models.values())[-1]
    classified = {name: model.classification for name, model in models.items() if model.classification}
    by_head = {name: model.class_head for name, model in models.items() if model.class_head}
    return [
        *([_classification_table(best.target, classified)] if classified else []),
        *([_class_head_table(best.target, by_head)] if by_head else []),
        *([_slices_table(best)] if best.slices else []),
        *([_calibration_table(best)] if best.calibration else []),
        *language_tables(best.result.metrics),
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


def _class_head_table(target: str, models: Mapping[str, dict[str, Any]]) -> Table:
    """What always naming the most frequent class would score, then all models by what their heads are given."""
    metrics = list(models.values())[-1]
    frequent = ["Most frequent class", "", *(f"{metrics['most_frequent'][name]:.1f}" for name in HEAD_METRICS)]
    rows = [
        [name, given, *(_cell(scores[given][key], **scores[given]["interval"][key]) for key in HEAD_METRICS)]
        for name, scores in models.items()
        for given in INPUTS
    ]
    return Table(
        f"{target.capitalize()}: the classification head by image, by text and by both, "
        f"{metrics['queries']['items']:,} items, {metrics['queries']['classes']:,} classes; per cent, with 95 % "
        "intervals.",
        ("Model", "By", *HEAD_METRICS.values()),
        [frequent, *rows],
    )


def _slices_table(model: ModelEvaluation) -> Table:
    return Table(
        f"{model.target.capitalize()}: recall by slices of the queries, among all candidates; per cent, with 95 % "
        "intervals.",
        ("Slice", "Direction", "Queries", *(metric.title for metric in RECALLS)),
        list(_slice_cells(model.slices)),
    )


def _slice_cells(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str | int]]:
    """A line for each slice, from the lines of its recalls."""
    for start in range(0, len(rows), len(RECALLS)):
        recalls = rows[start : start + len(RECALLS)]
        first = recalls[0]
        yield [
            f"{first['by']}: {first['value']}",
            LABELS[first["direction"]],
            first["queries"],
            *(_cell(row["score"], row["low"], row["high"]) for row in recalls),
        ]


def _calibration_table(model: ModelEvaluation) -> Table:
    assert model.calibration
    rows = [
        (f"{members.low:.3f} to {members.high:.3f}", members.queries, 100 * members.predicted, 100 * members.right)
        for members in reversed(model.calibration.bins)
    ]
    return Table(
        f"{model.target.capitalize()}: how probable it is that the first result of a text is right, from its score, "
        f"in tenths of the texts. Expected calibration error: {100 * model.calibration.error:.1f} points.",
        ("Score of the first result", "Texts", "Predicted, %", "Right, %"),
        rows,
    )


def _cell(score: float, low: float, high: float) -> str:
    return f"{score:.1f} ({low:.1f}–{high:.1f})"
