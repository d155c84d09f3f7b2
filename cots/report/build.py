"""Builds the report from the results of evaluation and the outputs of earlier stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from cots.directions import LABELS
from cots.file_names import PAIRS, SUMMARY
from cots.report import sections
from cots.report.attention import AttentionMap
from cots.report.further_results import further_tables
from cots.report.page import DvaeResults, FilterResults, Gallery, Report, ResultsTable, Table, Verdict
from cots.report.plots import Chart
from cots.report.results import ModelEvaluation

MODEL_NAMES = {False: "Pre-trained, zero-shot", True: "Fine-tuned"}  # by whether it is fine-tuned
SPEED_COLUMNS = {
    "items_per_second": "Items/s",
    "texts_per_second": "Texts/s",
    "search_ms": "Search, ms per query",
}  # by key in the metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOutputs:
    """Outputs of earlier stages.

    Attributes:
        shards: folder of the shards.
        manifest: one row per sample.
        rejected: one row per rejected sample.
        reports: folder with `validation`, `dvae`, `pretrain` and `finetune`, each of which may be missing.
    """

    shards: Path
    manifest: pd.DataFrame
    rejected: pd.DataFrame
    reports: Path


def build_report(
    evaluations: Sequence[ModelEvaluation],
    outputs: StageOutputs,
    *,
    about: str,
    notes: list[str],
    lineage: Mapping[str, str],
    params: str,
    maps: list[AttentionMap],
    num_examples: int,
    seed: int,
) -> Report:
    """Build the whole report; the galleries show the last model of each target.

    Args:
        evaluations: of the models, by target, the best model of each target last.
        outputs: of earlier stages.
        about: a sentence on data and split.
        notes: what is missing, and why.
        lineage: name to value; the digests of the models are added.
        params: text of the parameter file.
        maps: of a few captions.
        num_examples: queries per gallery.
        seed: of the choice of queries.
    """
    best, first = ({model.target: model for model in ordered} for ordered in (evaluations, reversed(evaluations)))
    load_images = sections.image_loader(outputs.shards, outputs.manifest)
    galleries = {
        target: _build_galleries(model, first[target], load_images, num_examples, seed)
        for target, model in best.items()
    }
    return Report(
        title="COTS retrieval report",
        about=about,
        verdicts=[_verdict(model, galleries[target][0]) for target, model in best.items()],
        results=[_results_table(target, evaluations) for target in best],
        folds=[table for target in best if (table := _folds_table(target, evaluations))],
        further=[table for target in best for table in further_tables(_models(target, evaluations))],
        notes=notes,
        speed=_speed_table(evaluations),
        galleries=[gallery for of_target in galleries.values() for gallery in of_target],
        attention_maps=maps,
        runs=_chart_runs(outputs.reports),
        dvae=_summarize_dvae(outputs.reports),
        filter=_summarize_filter(outputs, load_images),
        data=[
            sections.overview_table(outputs.manifest),
            *sections.reject_tables(outputs.rejected),
            *sections.validation_tables(outputs.reports / "validation" / SUMMARY),
        ],
        lineage=_lineage_table(lineage, evaluations),
        params=params,
    )


def _verdict(model: ModelEvaluation, by_text: Gallery) -> Verdict:
    """How often the best model is right in both directions, those by text first, with the first example."""
    metrics = model.result.metrics
    sentences = [
        f"{LABELS[name].capitalize()}: {metrics[name]['R@1']:.0f} % of the queries have a right result first, "
        f"{metrics[name]['R@10']:.0f} % among the first ten of {ranked.candidates:,} (chance "
        f"{metrics['chance'][name]['R@1']:.1f} % and {metrics['chance'][name]['R@10']:.1f} %)."
        for name, ranked in reversed(model.result.directions.items())
    ]
    example = next((query for query in by_text.queries if query.rank == 1), None)
    return Verdict(MODEL_NAMES[model.finetuned] + f", {model.target}", sentences, example)


def _results_table(target: str, evaluations: Sequence[ModelEvaluation]) -> ResultsTable:
    """Metrics of all models of a target on the whole split."""
    models = {name: model.result.metrics for name, model in _models(target, evaluations).items()}
    return ResultsTable(f"{target.capitalize()} retrieval", _direction_labels(target, evaluations), models)


def _models(target: str, evaluations: Sequence[ModelEvaluation]) -> dict[str, ModelEvaluation]:
    """The models of a target by their names in tables."""
    return {MODEL_NAMES[model.finetuned]: model for model in evaluations if model.target == target}


def _folds_table(target: str, evaluations: Sequence[ModelEvaluation]) -> ResultsTable | None:
    """The same as means over folds, if there are any."""
    folds = {
        name: model.result.metrics["folds"]
        for name, model in _models(target, evaluations).items()
        if "folds" in model.result.metrics
    }
    if not folds:
        return None
    number = next(iter(folds.values()))["number"]
    title = f"{target.capitalize()} retrieval, mean of {number} folds"
    return ResultsTable(title, _direction_labels(target, evaluations), folds)


def _direction_labels(target: str, evaluations: Sequence[ModelEvaluation]) -> dict[str, str]:
    model = next(model for model in evaluations if model.target == target)
    return {direction: LABELS[direction].capitalize() for direction in model.result.directions}


def _speed_table(evaluations: Sequence[ModelEvaluation]) -> Table:
    rows = [
        (_model_label(evaluation), *(evaluation.result.metrics["speed"][key] for key in SPEED_COLUMNS))
        for evaluation in evaluations
    ]
    return Table(
        "Encoding without decoding, and exact search of all texts for their ten nearest items, on this machine.",
        ("Model", *SPEED_COLUMNS.values()),
        rows,
    )


def _lineage_table(lineage: Mapping[str, str], evaluations: Sequence[ModelEvaluation]) -> Table:
    models = [(f"Weights, {_model_label(evaluation)}", evaluation.digest) for evaluation in evaluations]
    return Table("Code, data and models behind this report.", ("What", "Value"), [*lineage.items(), *models])


def _model_label(evaluation: ModelEvaluation) -> str:
    return f"{evaluation.target}, {MODEL_NAMES[evaluation.finetuned].lower()}"


def _build_galleries(
    model: ModelEvaluation, first: ModelEvaluation, load_images: sections.ImageLoader, num_examples: int, seed: int
) -> list[Gallery]:
    before = None if first is model else first.embedded
    return sections.build_galleries(
        model.embedded, model.result, load_images, before=before, count=num_examples, seed=seed
    )


def _chart_runs(reports: Path) -> dict[str, list[Chart]]:
    folders = {"Pre-training": reports / "pretrain"}
    folders |= {f"Fine-tuning, {path.name}": path for path in sorted((reports / "finetune").glob("*"))}
    return {title: sections.training_charts(title, path) for title, path in folders.items() if path.is_dir()}


def _summarize_dvae(reports: Path) -> DvaeResults | None:
    return sections.summarize_dvae(reports / "dvae") if (reports / "dvae").is_dir() else None


def _summarize_filter(outputs: StageOutputs, load_images: sections.ImageLoader) -> FilterResults | None:
    pairs = outputs.reports / "pretrain" / PAIRS
    has_pairs = pairs.is_file() and pq.read_metadata(pairs).num_rows  # baselines record no statistics of pairs
    return sections.summarize_filter(pairs, outputs.manifest, load_images) if has_pairs else None
