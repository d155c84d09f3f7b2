"""Model card and data card in the Hugging Face Hub's format, generated from recorded measurements only."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from huggingface_hub import DatasetCardData, EvalResult, ModelCardData

from cots.directions import LABELS
from cots.evaluation.class_metrics import CLASS_METRICS
from cots.evaluation.metric_table import Metric, headline
from cots.markdown import escape_markdown

MODEL_CARD, DATA_CARD = "README.md", "DATA_CARD.md"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CardContext:
    """Everything the cards of a packaged model show; packaging the same run again gives the same values.

    Attributes:
        target: `image-text` or `video-text`.
        params: the whole parameter file as plain values.
        metrics: content of metrics.json, by model and target.
        validation: content of the validation's summary.json.
        manifest: one row per sample.
        encoder: digest of the weights.
        data: digest of the manifest.
        parameters: digest of the parameter file.
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
        """Retrieval metrics of the deployed model."""
        metrics: Mapping[str, Any] = self.metrics[self.target]
        return metrics

    @property
    def headline(self) -> list[Metric]:
        """The headline metrics that were measured in every direction."""
        return [
            metric
            for metric in headline()
            if all(metric.name in self.measured[direction] for direction in self.directions)
        ]

    @property
    def directions(self) -> list[str]:
        """Keys of the retrieval directions in the metrics, item-to-text first."""
        return [name for name in LABELS if name in self.measured]


def model_card(context: CardContext) -> str:
    """Model card of the encoders and their index: Markdown with the Hub's front matter."""
    front = ModelCardData(
        model_name=f"cots {context.target}",
        library_name="cots",
        pipeline_tag="feature-extraction",
        tags=["cots", "two-stream", "retrieval", context.target],
        metrics=[str(metric.hub_name) for metric in context.headline],
        eval_results=_eval_results(context),
    )
    return _render("model_card.md.j2", front.to_yaml(), context=context, rows=_metric_rows(context))


def unmeasured_card(config: Mapping[str, Any], digest: str) -> str:
    """Model card of encoders without recorded measurements: what they are, and what they began with.

    Args:
        config: of the model; digest: of its weights.
    """
    front = ModelCardData(
        model_name="cots",
        library_name="cots",
        pipeline_tag="feature-extraction",
        tags=["cots", "two-stream", "retrieval"],
    )
    return _render("unmeasured_card.md.j2", front.to_yaml(), config=config, digest=digest)


def data_card(context: CardContext) -> str:
    """Data card of the training and test data: Markdown with the Hub's front matter."""
    splits = context.manifest.assign(captions=context.manifest["captions"].map(len))
    front = DatasetCardData(
        pretty_name=f"{context.params['source']['kind']} as prepared",
        size_categories=[next((name for limit, name in SIZES if len(splits) < limit), "n>1M")],
        task_categories=["image-to-text", "text-to-image"],
        tags=["cots", "retrieval"],
    )
    counts = splits.groupby(["split", "media"], sort=False)["captions"].agg(["size", "sum"]).reset_index()
    return _render("data_card.md.j2", front.to_yaml(), context=context, rows=counts.values.tolist())


class _Score(NamedTuple):
    """A measurement that the card shows, in the metric's unit."""

    task: str
    label: str
    name: str
    hub_name: str
    value: float
    interval: Mapping[str, float]
    chance: float | None


def _scores(context: CardContext) -> Iterator[_Score]:
    """The headline metrics of each direction, then zero-shot classification if that was measured."""
    measured = context.measured
    for direction in context.directions:
        values, intervals, chance = (part[direction] for part in (measured, measured["interval"], measured["chance"]))
        for metric in context.headline:
            numbers = values[metric.name], intervals[metric.name], chance.get(metric.name)
            yield _Score("retrieval", direction, metric.name, str(metric.hub_name), *numbers)
    if classification := measured.get("classification"):
        for of_classes in CLASS_METRICS:
            intervals, chance = classification["interval"], classification["chance"]
            numbers = classification[of_classes.name], intervals[of_classes.name], chance[of_classes.name]
            task = f"zero-shot-{context.target.removesuffix('-text')}-classification"
            yield _Score(task, "zero-shot", of_classes.title, of_classes.hub_name, *numbers)


def _eval_results(context: CardContext) -> list[EvalResult]:
    source, split = context.params["source"]["kind"], context.params["evaluate"]["split"]
    return [
        EvalResult(
            task_type=score.task,
            task_name=_task_label(score),
            dataset_type=source,
            dataset_name=source,
            dataset_split=split,
            metric_type=score.hub_name,
            metric_name=f"{score.label} {score.name}",
            metric_value=score.value,
        )
        for score in _scores(context)
    ]


def _metric_rows(context: CardContext) -> list[list[str]]:
    """One row per direction or task and metric: value, 95 % interval, chance level."""
    return [
        [
            _task_label(score),
            score.name,
            f"{score.value:.1f}",
            f"{score.interval['low']:.1f} to {score.interval['high']:.1f}",
            "" if score.chance is None else f"{score.chance:.1f}",
        ]
        for score in _scores(context)
    ]


def _task_label(score: _Score) -> str:
    return LABELS.get(score.label, "zero-shot classification")


def _render(template: str, front: str, **values: Any) -> str:  # noqa: ANN401  whatever the template shows
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cots.registry"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  Markdown
    )
    environment.filters["escape_markdown"] = escape_markdown
    return environment.get_template(template).render(front=front.strip(), **values) + "\n"
