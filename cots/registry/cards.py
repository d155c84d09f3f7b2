"""Model card and data card in the Hugging Face Hub's format, generated from recorded measurements only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd
from huggingface_hub import DatasetCardData, EvalResult, ModelCardData

from cots.directions import LABELS
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


def _eval_results(context: CardContext) -> list[EvalResult]:
    source, split = context.params["source"]["kind"], context.params["evaluate"]["split"]
    return [
        EvalResult(
            task_type="retrieval",
            task_name=LABELS[direction],
            dataset_type=source,
            dataset_name=source,
            dataset_split=split,
            metric_type=str(metric.hub_name),
            metric_name=f"{direction} {metric.name}",
            metric_value=context.measured[direction][metric.name],
        )
        for direction in context.directions
        for metric in context.headline
    ]


def _metric_rows(context: CardContext) -> list[list[str]]:
    """One row per direction and metric: value, 95 % interval, chance level."""
    interval, chance = context.measured["interval"], context.measured["chance"]
    rows = []
    for direction in context.directions:
        for name in (metric.name for metric in context.headline):
            low, high = (interval[direction][name][end] for end in ("low", "high"))
            chance_level = chance[direction].get(name)
            chance_cell = "" if chance_level is None else f"{chance_level:.1f}"
            rows.append(
                [
                    LABELS[direction],
                    name,
                    f"{context.measured[direction][name]:.1f}",
                    f"{low:.1f} to {high:.1f}",
                    chance_cell,
                ]
            )
    return rows


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
