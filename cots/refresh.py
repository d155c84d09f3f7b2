"""Builds and publishes a new index version: the current data, encoded by the deployed encoders, without training."""

import shutil
from pathlib import Path

from cots.config.params import Params
from cots.digests import file_digest
from cots.file_names import LINEAGE, MANIFEST
from cots.files import write_json
from cots.registry.cards import DATA_CARD, MODEL_CARD
from cots.registry.client import INDEX
from cots.registry.evidence import PARAMS
from cots.registry.packaging import save_index
from cots.registry.publishing import build_evaluator, publish_package
from cots.registry.registry import PublishResult, Registry
from cots.registry.versions import VersionInfo, write_runs
from cots.stages.index import stage as index_stage
from cots.stages.package import index_lineage, inference_config, read_validation
from cots.tracking.git import git_state
from cots.tracking.loading import fetch_model_folder, find_encoders

WORK, CACHE = Path("runs/refresh"), Path("runs/vectors")


def refresh(params: Params, project: Path = Path()) -> PublishResult | None:
    """Index the samples of `data/` with the champion's encoders and publish the index.

    Samples that these encoders have indexed on this machine before are not encoded again; `runs/vectors` caches the
    embeddings of the current samples only.

    Metrics, evidence and runs are copied from the champion; manifest, items and validation are the current ones.

    Args:
        params: of the project; only section `index` and the size limits of images are used.
        project: folder of the project.

    Returns:
        None if the champion's index was built from the same data and parameters.

    Raises:
        BadInput: no version is deployed, or an input is missing.
        RunFailed: MLflow is down or refuses, or another promotion happened at the same time.
    """
    registry = Registry()
    champion = registry.get_champion()
    artifacts, manifest = registry.get_artifacts(champion.version), project / "data" / MANIFEST
    before = artifacts.load_params()
    recipe = before | {"index": params.dump_packaged()["index"]}
    if champion.tags.get("manifest.digest") == file_digest(manifest) and recipe == before:
        return None
    work = project / WORK
    shutil.rmtree(work, ignore_errors=True)
    write_json(artifacts.download_evidence(work / "package") / PARAMS, recipe)
    _package(champion, params, project, lineage=artifacts.load_lineage())
    write_runs(champion, work / "runs")
    result = publish_package(work / "package", build_evaluator(params, project), project, runs=work / "runs")
    shutil.rmtree(work)
    return result


def _package(champion: VersionInfo, params: Params, project: Path, *, lineage: dict[str, object]) -> None:
    """Write what stage `package` would write, but for the encoders, which are registered already."""
    work, data = project / WORK, project / "data"
    scratch = work / "champion"
    scratch.mkdir()
    uri = f"models:/{INDEX}/{champion.version}"
    model = fetch_model_folder(uri, into=scratch)
    encoders = find_encoders(model, name=uri)
    index_stage(data / "shards", data / MANIFEST, encoders, work / "index", params=params, cache_dir=project / CACHE)
    cards = {name: (model / name).read_text(encoding="utf8") for name in (MODEL_CARD, DATA_CARD)}
    out = work / "package" / "index"
    save_index(out, encoders, work / "index", config=inference_config(params), cards=cards)
    validation = read_validation(project / "reports" / "validation")
    new_lineage = index_lineage(work / "index", out, data / MANIFEST, validation)
    write_json(work / "package" / LINEAGE, lineage | git_state() | new_lineage)
