"""Tables of the report: retrieval by language and across languages."""

from collections.abc import Mapping
from typing import Any

from cots.directions import LABELS
from cots.evaluation import metric_table
from cots.evaluation.by_language import across_rows
from cots.report.page import Table


def language_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """Scores of one model by language and across languages; empty without several languages."""
    if "languages" not in metrics:
        return []
    directions = [name for name in LABELS if name in metrics]
    within = [
        (
            language,
            *scores["queries"].values(),
            *(float(scores[name][metric.name]) for name in directions for metric in metric_table.METRICS),
            float(scores["rsum"]),
            float(scores["chance"]["rsum"]),
        )
        for language, scores in metrics["languages"].items()
    ]
    across = [
        (
            f"{source} to {target}",
            scores["queries"],
            *(float(scores[metric.name]) for metric in metric_table.METRICS),
            *(float(scores["chance"][metric.name]) for metric in metric_table.RECALLS),
        )
        for source, target, scores in across_rows(metrics)
    ]
    head = tuple(f"{name} {metric.title}" for name in directions for metric in metric_table.METRICS)
    by_chance = tuple(f"{metric.title}, chance" for metric in metric_table.RECALLS)
    return [
        Table(
            f"{' and '.join(LABELS[name].capitalize() for name in directions)}, by language of the texts: each against "
            "the captions in its language and the items that have some.",
            ("Language", "Items", "Texts", *head, "RSUM", "RSUM, chance"),
            within,
        ),
        Table(
            "Text to text: a caption in one language finds those of its image in another, among all captions in it.",
            ("Languages", "Queries", *(metric.title for metric in metric_table.METRICS), *by_chance),
            across,
        ),
    ]
