"""Builds and publishes an index before any training, with the encoders that training would start from."""

import shutil
from pathlib import Path

from cots.config.params import Params
from cots.data.manifest import read_manifest, select_captioned, select_part, write_table
from cots.data.stored_samples import read_stored_samples
from cots.directions import MEDIA_OF
from cots.errors import BadInput
from cots.evaluation.embedding import embed
from cots.evaluation.query_table import SCHEMA
from cots.evaluation.retrieval import evaluate_retrieval
from cots.factory.model import fit_to_section
from cots.file_names import MANIFEST, SUMMARY
from cots.files import write_json
from cots.models.dual_encoder import DualEncoder
from cots.refresh import CACHE, VALIDATION, summary_without_checks
from cots.registry.publishing import build_evaluator, publish_package
from cots.registry.registry import PublishResult
from cots.report.results import write_query_table
from cots.stages.index import stage as index_stage
from cots.stages.package import stage as package_stage
from cots.tracking.loading import load_start

WORK = Path("runs/zero_shot")


def has_captions(project: Path = Path()) -> bool:
    """Whether any prepared sample has a caption to validate, train or measure on."""
    return not select_captioned(read_manifest(project / "data" / MANIFEST)).empty


def publish_zero_shot(params: Params, project: Path = Path(), *, model: DualEncoder | None = None) -> PublishResult:
    """Index the samples of `data/` with the encoders of `model.init_from` as they are, and publish the index.

    The package is the one that the pipeline would write with `steps: 0` in every run. If split `evaluate.split` has
    captions, the encoders are measured on them; otherwise the package has no measurements.

    Args:
        params: parameters of the project.
        project: its folder.
        model: the result of `load_zero_shot_model`, if it is loaded already.

    Raises:
        BadInput: training starts from encoders that were never trained together, or an input is missing.
        RunFailed: MLflow is down or refuses, or another promotion happened at the same time.
    """
    work, data = project / WORK, project / "data"
    shutil.rmtree(work, ignore_errors=True)
    model = model or load_zero_shot_model(params)
    model.save(work / "encoders")
    index_stage(
        data / "shards", data / MANIFEST, work / "encoders", work / "index", params=params, cache_dir=project / CACHE
    )
    _measure(model, params, data, work)
    package_stage(
        work / "encoders",
        work / "index",
        work / "metrics.json",
        work / "evaluation",
        _validation_folder(project, work),
        data / MANIFEST,
        work / "package",
        params=_without_steps(params),
    )
    result = publish_package(work / "package", build_evaluator(params, project), project, runs=work / "runs")
    shutil.rmtree(work)
    return result


def load_zero_shot_model(params: Params) -> DualEncoder:
    """Load the encoders of `model.init_from`, at the image size of the fine-tuning for the index's target.

    Raises:
        BadInput: training starts from encoders that were never trained together, or the model does not exist.
        RunFailed: MLflow is down.
    """
    start = params.model.init_from
    if start is None:
        raise BadInput(
            "model.init_from is null: the vectors of encoders that were never trained together have nothing in common; "
            "train them (`dvc repro`), or name a checkpoint of CLIP or SigLIP"
        )
    model = fit_to_section(load_start(start), params.model, name=start)
    return model.with_image_size(params.finetune[params.index.target].size)


def _measure(model: DualEncoder, params: Params, data: Path, work: Path) -> None:
    """Write metrics and query table as stage `evaluate` does; without captions both are empty."""
    config, target = params.evaluate, params.index.target
    rows = select_part(read_manifest(data / MANIFEST), config.split, MEDIA_OF[target])
    table = work / "evaluation" / f"{target}.parquet"
    table.parent.mkdir()
    if rows.empty:
        write_table(table, [], SCHEMA)
        write_json(work / "metrics.json", {})
        return
    embedded = embed(model, read_stored_samples(data / "shards", rows), batch_size=config.batch_size)
    options = {"folds": config.folds, "resamples": config.bootstrap_resamples, "seed": config.seed}
    result = evaluate_retrieval(embedded, media=MEDIA_OF[target], **options)
    write_query_table(table, embedded, result)
    write_json(work / "metrics.json", {target: result.metrics})


def _validation_folder(project: Path, work: Path) -> Path:
    """The folder with the validation's summary; data without captions are not validated: theirs has no checks."""
    if has_captions(project):
        return project / VALIDATION
    folder = work / "validation"
    folder.mkdir()
    write_json(folder / SUMMARY, summary_without_checks(project))
    return folder


def _without_steps(params: Params) -> Params:
    """The parameters of a project that trains nothing."""
    values = params.dump_all()
    for run in (values["pretrain"], *values["finetune"].values()):
        run["steps"] = 0
    return Params.model_validate(values)
