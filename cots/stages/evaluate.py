"""Stage `evaluate`: retrieval metrics of every model on the held-out split, quality of the filter, and the report."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cots.config.stages.evaluate import EvaluateParams
from cots.data.ingest.metadata import metadata_column, metadata_field
from cots.data.manifest import read_manifest, select_captioned, select_part
from cots.data.stored_samples import read_stored_by_id, read_stored_samples
from cots.digests import file_digest
from cots.directions import MEDIA_OF, Target
from cots.distributed import rank
from cots.errors import exit_on_error
from cots.evaluation.calibration import calibrate_texts
from cots.evaluation.class_head import evaluate_class_head
from cots.evaluation.classification import Classes, class_names, embed_classes, evaluate_classification
from cots.evaluation.embedding import EmbeddedSplit, embed
from cots.evaluation.retrieval import evaluate_retrieval
from cots.evaluation.slices import recall_rows, slice_queries
from cots.file_names import CODEBOOK_USAGE
from cots.files import write_json
from cots.init_distributed import init_distributed
from cots.models.dual_encoder import DualEncoder
from cots.report.attention import AttentionMap, attention_maps
from cots.report.build import StageOutputs, build_report
from cots.report.page import Report, write_page
from cots.report.results import ModelEvaluation, flatten_for_mlflow, headline_metrics, write_queries
from cots.rounding import rounded
from cots.tracking.git import git_state
from cots.tracking.runs import start_run

PACKAGES = ("torch", "timm", "transformers", "webdataset", "faiss-cpu", "mlflow", "dvc")


def stage(
    shards: Path,
    manifest: Path,
    rejected: Path,
    pretrained: Path,
    finetuned: Path,
    reports: Path,
    headline: Path,
    metrics: Path,
    queries: Path,
    page: Path,
    run: Path,
    *,
    params: EvaluateParams,
) -> None:
    """Evaluate pre-trained and fine-tuned models; write and log metrics, the rank of every query and the report.

    Raises:
        BadInput: an input is missing, or a model cannot be loaded.
    """
    outputs = StageOutputs(
        shards=shards, manifest=read_manifest(manifest), rejected=pd.read_parquet(rejected), reports=reports
    )
    columns = _read_columns(outputs.manifest, params)
    if rank():  # only rank 0 evaluates and writes
        for _ in _embed_splits(outputs, pretrained, finetuned, columns, params):
            pass
        return
    with start_run("evaluate", {"evaluate": params.evaluate}, run, manifest=manifest) as mlflow_run:
        evaluations = list(_evaluate_models(outputs, pretrained, finetuned, columns, params))
        maps = _map_attention(evaluations, outputs, finetuned, params)
        report = _build_report(evaluations, outputs, _lineage(manifest), maps, params)
        values = {model.key: model.metrics for model in evaluations} | _read_training_metrics(reports, report)
        metrics.parent.mkdir(parents=True, exist_ok=True)
        headlines = headline_metrics(evaluations)
        write_json(headline, headlines)
        write_json(metrics, values)
        write_queries(queries, evaluations)
        write_page(page, report)
        mlflow_run.log_metrics(flatten_for_mlflow(values))
        mlflow_run.log_headline(flatten_for_mlflow(headlines))
        for path in (metrics, queries, page):
            mlflow_run.log_artifact(path)


def _absent_targets(outputs: StageOutputs, params: EvaluateParams) -> list[Target]:
    """Targets of whose media the split has no samples."""
    present = set(outputs.manifest.loc[outputs.manifest["split"] == params.evaluate.split, "media"])
    return [target for target in params.finetune if MEDIA_OF[target] not in present]


Columns = dict[str, dict[str, str | None]]  # of the source: by name, the value of each captioned sample by its id


@dataclass(frozen=True, slots=True)
class _Embedded:
    """The split, and the classes if there are any, embedded by one model; and what its classification head scores."""

    target: Target
    folder: Path
    digest: str
    rows: pd.DataFrame
    split: EmbeddedSplit
    classes: Classes | None
    class_head: dict[str, Any] | None


def _embed_splits(
    outputs: StageOutputs, pretrained: Path, finetuned: Path, columns: Columns, params: EvaluateParams
) -> Iterator[_Embedded]:
    """For each target, what the pre-trained and then the fine-tuned model makes of the split."""
    settings, absent = params.evaluate, _absent_targets(outputs, params)
    for target in (target for target in params.finetune if target not in absent):
        rows = select_part(outputs.manifest, settings.split, MEDIA_OF[target])
        for folder in (pretrained, finetuned / target):
            model, samples = DualEncoder.load(folder), read_stored_samples(outputs.shards, rows)
            split = embed(model, samples, batch_size=settings.batch_size)
            of_media = outputs.manifest[outputs.manifest["media"] == MEDIA_OF[target]]
            classes = _embed_classes(model, of_media, columns, params)
            head = _evaluate_class_head(model, split, rows, params)
            yield _Embedded(target, folder, model.digest, rows, split, classes, head)


def _evaluate_class_head(
    model: DualEncoder, split: EmbeddedSplit, rows: pd.DataFrame, params: EvaluateParams
) -> dict[str, Any] | None:
    """Scores of the model's classification head; None if it has none, or no sample of the split has a class."""
    if model.class_head is None:
        return None
    column, settings = model.config["classifier"]["column"], params.evaluate
    labels = [metadata_field(metadata, column) for metadata in rows["metadata"]]
    return evaluate_class_head(model, split, labels, resamples=settings.bootstrap_resamples, seed=settings.seed)


def _embed_classes(
    model: DualEncoder, of_media: pd.DataFrame, columns: Columns, params: EvaluateParams
) -> Classes | None:
    """The classes of all captioned images or videos; None if no column is named, or none of them has one."""
    settings = params.evaluate.classification
    if settings.column is None:
        return None
    values = [value for value in _select(columns, settings.column, of_media) if value is not None]
    if not values:
        return None
    return embed_classes(model, class_names(values), settings.templates, batch_size=params.evaluate.batch_size)


def _read_columns(manifest: pd.DataFrame, params: EvaluateParams) -> Columns:
    """The columns of the source that slices and classes need; each exists if any captioned sample has it."""
    names = {*params.evaluate.slices.columns, params.evaluate.classification.column}
    captioned = select_captioned(manifest)
    return {
        name: dict(zip(captioned["id"], metadata_column(captioned["metadata"], name), strict=True))
        for name in sorted(filter(None, names))
    }


def _select(columns: Columns, name: str, rows: pd.DataFrame) -> list[str | None]:
    """The values of a column for some rows of the manifest."""
    return [columns[name].get(id_) for id_ in rows["id"]]


def _evaluate_models(
    outputs: StageOutputs, pretrained: Path, finetuned: Path, columns: Columns, params: EvaluateParams
) -> Iterator[ModelEvaluation]:
    settings = params.evaluate
    draws = {"resamples": settings.bootstrap_resamples, "seed": settings.seed}
    for embedded in _embed_splits(outputs, pretrained, finetuned, columns, params):
        media = MEDIA_OF[embedded.target]
        result = evaluate_retrieval(embedded.split, media=media, folds=settings.folds, **draws)
        of_rows = {name: _select(columns, name, embedded.rows) for name in settings.slices.columns}
        slices = slice_queries(embedded.split, result.directions, of_rows, max_values=settings.slices.max_values)
        yield ModelEvaluation(
            target=embedded.target,
            finetuned=embedded.folder != pretrained,
            digest=embedded.digest,
            embedded=embedded.split,
            result=result,
            slices=list(recall_rows(slices, **draws)),
            calibration=calibrate_texts(embedded.split, list(result.directions.values())[1]),
            classification=_classify(embedded, columns, params, **draws),
            class_head=embedded.class_head,
        )


def _classify(embedded: _Embedded, columns: Columns, params: EvaluateParams, **draws: int) -> dict[str, Any] | None:
    """Zero-shot classification by one model; None if there are no classes."""
    column = params.evaluate.classification.column
    if embedded.classes is None or column is None:
        return None
    labels = _select(columns, column, embedded.rows)
    return evaluate_classification(embedded.split.items, labels, embedded.classes, **draws)


def _map_attention(
    evaluations: list[ModelEvaluation], outputs: StageOutputs, finetuned: Path, params: EvaluateParams
) -> list[AttentionMap]:
    """Attention maps of the fine-tuned models."""
    num_maps, seed = -(-params.evaluate.num_examples // 2), params.evaluate.seed
    return [
        attention_map
        for evaluation in evaluations
        if evaluation.finetuned
        for attention_map in attention_maps(
            DualEncoder.load(finetuned / evaluation.target),
            evaluation.embedded,
            list(evaluation.result.directions.values())[1],
            partial(read_stored_by_id, outputs.shards, outputs.manifest),
            count=num_maps,
            seed=seed,
        )
    ]


def _build_report(
    evaluations: list[ModelEvaluation],
    outputs: StageOutputs,
    lineage: dict[str, str],
    maps: list[AttentionMap],
    params: EvaluateParams,
) -> Report:
    settings, source = params.evaluate, params.dump_evaluated()["source"]
    return build_report(
        evaluations,
        outputs,
        about=f"Source {source['kind']}, split {settings.split}: texts, images and videos in one shared space.",
        notes=[
            f"{target}: split {settings.split} has no {MEDIA_OF[target]} to evaluate."
            for target in _absent_targets(outputs, params)
        ],
        lineage=lineage,
        params=yaml.safe_dump(params.dump_evaluated(), sort_keys=False, allow_unicode=True),
        maps=maps,
        num_examples=settings.num_examples,
        seed=settings.seed,
    )


def _read_training_metrics(reports: Path, report: Report) -> dict[str, Any]:
    """Metrics of earlier stages: quality of the filter, if ground truth exists, and codebook usage."""
    filter_metrics = report.filter.metrics if report.filter else None
    usage = reports / "dvae" / CODEBOOK_USAGE
    return ({"filter": rounded(filter_metrics)} if filter_metrics else {}) | (
        {"dvae": json.loads(usage.read_text(encoding="utf8"))} if usage.is_file() else {}
    )


def _lineage(manifest: Path) -> dict[str, str]:
    inputs = {"made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "manifest": file_digest(manifest)}
    return git_state() | inputs | {package: version(package) for package in PACKAGES}


if __name__ == "__main__":
    with exit_on_error(), init_distributed():
        stage(*map(Path, sys.argv[1:]), params=EvaluateParams.load())
