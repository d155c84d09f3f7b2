"""Model card and data card in the hub's format, written from what was measured and from nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd
from huggingface_hub import DatasetCardData, EvalResult, ModelCardData

from cots.directions import LABELS
from cots.evaluation.metric_table import Metric, headline

MODEL_CARD, DATA_CARD = "README.md", "DATA_CARD.md"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CardContext:
    """What the cards tell of a packaged model; nothing that changes when the same run is packaged again.

    Attributes:
        target: what it retrieves, `image-text` or `video-text`.
        params: the whole parameter file as plain values.
        metrics: metrics.json, by model and target.
        validation: the validation's summary.json.
        manifest: one row a sample.
        encoder: digest of the weights; data: digest of the manifest; parameters: digest of the parameter file.
    """

    target: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]
    validation: Mapping[str, Any]
    manifest: pd.DataFrame
    encoder: str
    data: str
    parameters: str

    @property
    def measured(self) -> Mapping[str, Any]:
        """Retrieval of the deployed model."""
        measured: Mapping[str, Any] = self.metrics[self.target]
        return measured

    @property
    def headline(self) -> list[Metric]:
        """The metrics that were measured, of those that cards show."""
        return [metric for metric in headline() if all(metric.name in self.measured[way] for way in self.directions)]

    @property
    def directions(self) -> list[str]:
        """As they are named in the metrics, items to texts first."""
        return [name for name in LABELS if name in self.measured]


def model_card(facts: CardContext) -> str:
    """The card of the encoders and of the index that they made, as Markdown with the hub's front matter."""
    front = ModelCardData(
        model_name=f"cots {facts.target}",
        library_name="cots",
        pipeline_tag="feature-extraction",
        tags=["cots", "two-stream", "retrieval", facts.target],
        metrics=[str(metric.hub_name) for metric in facts.headline],
        eval_results=_results(facts),
    )
    return _rendered("model_card.md.j2", facts, front.to_yaml(), rows=_table(facts))


def data_card(facts: CardContext) -> str:
    """The card of the data that trained and measured them, as Markdown with the hub's front matter."""
    splits = facts.manifest.assign(captions=facts.manifest["captions"].map(len))
    front = DatasetCardData(
        pretty_name=f"{facts.params['source']['kind']} as prepared",
        size_categories=[next((name for most, name in SIZES if len(splits) < most), "n>1M")],
        task_categories=["image-to-text", "text-to-image"],
        tags=["cots", "retrieval"],
    )
    counted = splits.groupby(["split", "media"], sort=False)["captions"].agg(["size", "sum"]).reset_index()
    return _rendered("data_card.md.j2", facts, front.to_yaml(), rows=counted.values.tolist())


def _results(facts: CardContext) -> list[EvalResult]:
    source, split = facts.params["source"]["kind"], facts.params["evaluate"]["split"]
    return [
        EvalResult(
            task_type="retrieval",
            task_name=LABELS[way],
            dataset_type=source,
            dataset_name=source,
            dataset_split=split,
            metric_type=str(metric.hub_name),
            metric_name=f"{way} {metric.name}",
            metric_value=facts.measured[way][metric.name],
        )
        for way in facts.directions
        for metric in facts.headline
    ]


def _table(facts: CardContext) -> list[list[str]]:
    """A row a direction and score: value, 95 % interval, chance."""
    interval, chance = facts.measured["interval"], facts.measured["chance"]
    rows = []
    for way in facts.directions:
        for name in (metric.name for metric in facts.headline):
            low, high = (interval[way][name][end] for end in ("low", "high"))
            by_chance = chance[way].get(name)
            chance_cell = "" if by_chance is None else f"{by_chance:.1f}"
            rows.append(
                [LABELS[way], name, f"{facts.measured[way][name]:.1f}", f"{low:.1f} to {high:.1f}", chance_cell]
            )
    return rows


def _rendered(template: str, facts: CardContext, front: str, *, rows: list[list[Any]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cots.registry"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  Markdown
    )
    return environment.get_template(template).render(facts=facts, front=front.strip(), rows=rows) + "\n"
