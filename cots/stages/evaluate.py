"""Stage `evaluate`: retrieval of every model on the held-out split, the filter's hits, and the report."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cots.config.stages.evaluate import EvaluateParams
from cots.data.manifest import part, read_manifest
from cots.data.stored_samples import read_stored_by_id, read_stored_samples
from cots.digests import file_digest
from cots.directions import MEDIA_OF, Target
from cots.distributed import rank
from cots.errors import exit_on_error
from cots.evaluation.embedding import EmbeddedSplit, embed
from cots.evaluation.retrieval import evaluate_retrieval
from cots.file_names import CODEBOOK_USAGE
from cots.files import write_json
from cots.init_distributed import init_distributed
from cots.models.dual_encoder import DualEncoder
from cots.report.attention import AttentionMap, attention_maps
from cots.report.build import StageOutputs, build_report
from cots.report.page import Report, write_page
from cots.report.results import Evaluated, flat, write_queries
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
    metrics: Path,
    queries: Path,
    page: Path,
    run: Path,
    *,
    params: EvaluateParams,
) -> None:
    """Measure pre-trained and fine-tuned models; write metrics, every query's rank and the page; log them.

    Raises:
        BadInput: an input is missing, or a model cannot be loaded.
    """
    left = StageOutputs(
        shards=shards, manifest=read_manifest(manifest), rejected=pd.read_parquet(rejected), reports=reports
    )
    if rank():  # the first process measures and writes
        for _ in _embedded(left, pretrained, finetuned, params):
            pass
        return
    with start_run("evaluate", {"evaluate": params.evaluate}, run, manifest=manifest) as logged:
        measured = list(_measured(left, pretrained, finetuned, params))
        seen = _looks(measured, left, finetuned, params)
        report = _report(measured, left, _lineage(manifest), seen, params)
        values = {one.key: one.measured.metrics for one in measured} | _of_training(reports, report)
        metrics.parent.mkdir(parents=True, exist_ok=True)
        write_json(metrics, values)
        write_queries(queries, measured)
        write_page(page, report)
        logged.log_metrics(flat(values))
        for path in (metrics, queries, page):
            logged.log_artifact(path)


def _absent(left: StageOutputs, params: EvaluateParams) -> list[Target]:
    """Targets whose media the split does not hold."""
    held = set(left.manifest.loc[left.manifest["split"] == params.evaluate.split, "media"])
    return [target for target in params.finetune if MEDIA_OF[target] not in held]


def _embedded(
    left: StageOutputs, pretrained: Path, finetuned: Path, params: EvaluateParams
) -> Iterator[tuple[Target, Path, str, EmbeddedSplit]]:
    """By target, first as pre-trained and then as fine-tuned: the model's folder, its digest, and the split by it."""
    settings, absent = params.evaluate, _absent(left, params)
    for target in (target for target in params.finetune if target not in absent):
        rows = part(left.manifest, settings.split, MEDIA_OF[target])
        for folder in (pretrained, finetuned / target):
            model, samples = DualEncoder.load(folder), read_stored_samples(left.shards, rows)
            yield target, folder, model.digest, embed(model, samples, batch=settings.batch_size)


def _measured(left: StageOutputs, pretrained: Path, finetuned: Path, params: EvaluateParams) -> Iterator[Evaluated]:
    settings = params.evaluate
    for target, folder, digest, embedded in _embedded(left, pretrained, finetuned, params):
        chosen = {"folds": settings.folds, "resamples": settings.bootstrap_resamples, "seed": settings.seed}
        yield Evaluated(
            target=target,
            finetuned=folder != pretrained,
            digest=digest,
            embedded=embedded,
            measured=evaluate_retrieval(embedded, media=MEDIA_OF[target], **chosen),
        )


def _looks(
    measured: list[Evaluated], left: StageOutputs, finetuned: Path, params: EvaluateParams
) -> list[AttentionMap]:
    """Maps under the fine-tuned models."""
    shown, seed = -(-params.evaluate.num_examples // 2), params.evaluate.seed
    return [
        look
        for one in measured
        if one.finetuned
        for look in attention_maps(
            DualEncoder.load(finetuned / one.target),
            one.embedded,
            list(one.measured.directions.values())[1],
            partial(read_stored_by_id, left.shards, left.manifest),
            count=shown,
            seed=seed,
        )
    ]


def _report(
    measured: list[Evaluated],
    left: StageOutputs,
    lineage: dict[str, str],
    seen: list[AttentionMap],
    params: EvaluateParams,
) -> Report:
    settings = params.evaluate
    return build_report(
        measured,
        left,
        about=f"Source {params.source.kind}, split {settings.split}: texts, pictures and clips in one shared space.",
        notes=[
            f"{target}: split {settings.split} holds no {MEDIA_OF[target]} to measure."
            for target in _absent(left, params)
        ],
        lineage=lineage,
        params=yaml.safe_dump(params.described(), sort_keys=False, allow_unicode=True),
        looks=seen,
        shown=settings.num_examples,
        seed=settings.seed,
    )


def _of_training(reports: Path, report: Report) -> dict[str, Any]:
    """What earlier stages measured: the filter's hits where they can be known, and the use of the codebook."""
    figures = report.noise.figures if report.noise else None
    usage = reports / "dvae" / CODEBOOK_USAGE
    return ({"filter": rounded(figures)} if figures else {}) | (
        {"dvae": json.loads(usage.read_text(encoding="utf8"))} if usage.is_file() else {}
    )


def _lineage(manifest: Path) -> dict[str, str]:
    made = {"made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "manifest": file_digest(manifest)}
    return git_state() | made | {package: version(package) for package in PACKAGES}


if __name__ == "__main__":
    with exit_on_error(), init_distributed():
        stage(*map(Path, sys.argv[1:]), params=EvaluateParams.load())
