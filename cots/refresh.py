"""Builds and publishes an index of the current data with the deployed encoders, without training."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cots.config.params import Params
from cots.digests import file_digest, text_digest
from cots.errors import UnreadableFiles
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

WORK, CACHE, VALIDATION = Path("runs/refresh"), Path("runs/vectors"), Path("reports/validation")
DONE = Path("runs/refreshed.json")  # of what the deployed version is known to be the index


def refresh(params: Params, project: Path = Path()) -> PublishResult | None:
    """Index the samples of `data/` with the champion's encoders and publish the index.

    Samples that these encoders have indexed on this machine before are not encoded again: `runs/vectors` holds the
    embeddings of the current samples.

    Metrics, evidence and runs are the champion's; manifest, items and validation are the current ones.

    Args:
        params: parameters of the project; only section `index` and the size limits of images are used.
        project: its folder.

    Returns:
        None if the champion's index was built from the same data and parameters, or has the bytes that they gave. If
        the gate has decided on an index of the same encoders, data and parameters before, for example refused it, that
        result; nothing is built then.

    Raises:
        BadInput: no version is deployed, or an input is missing.
        RunFailed: MLflow is down or refuses, or another promotion happened at the same time.
    """
    registry = Registry()
    champion = registry.get_champion()
    artifacts, manifest = registry.get_artifacts(champion.version), project / "data" / MANIFEST
    champion_params, work = artifacts.load_params(), project / WORK
    new_params = champion_params | {"index": params.dump_packaged()["index"]}
    digest = file_digest(manifest)
    done = {"manifest": digest, "params": text_digest(json.dumps(new_params, sort_keys=True))}
    if not work.exists():  # otherwise a refresh was killed, perhaps after it had deployed the index
        if champion.tags.get("manifest.digest") == digest and new_params == champion_params:
            return None
        if _read_done(project) == done | {"version": champion.version}:
            return None
        if decided := _find_decided(registry, champion, digest, new_params):
            return decided
    shutil.rmtree(work, ignore_errors=True)
    write_json(artifacts.download_evidence(work / "package") / PARAMS, new_params)
    is_trained = bool(artifacts.load_training_ids())
    _package(champion, params, project, lineage=artifacts.load_lineage(), is_trained=is_trained)
    write_runs(champion, work / "runs")
    result = publish_package(work / "package", build_evaluator(params, project), project, runs=work / "runs")
    shutil.rmtree(work)
    if registry.get_artifacts(result.version).load_params() != new_params:  # one that changes no byte of the index
        write_json(project / DONE, done | {"version": result.version})
    return result


def _read_done(project: Path) -> object:
    """What the last refresh that found its index registered already wrote; None if none did, or the file is damaged."""
    try:
        return json.loads((project / DONE).read_text(encoding="utf8"))
    except (FileNotFoundError, ValueError):
        return None


def summary_without_checks(project: Path) -> dict[str, Any]:
    """What stands in place of a validation's summary where nothing was trained on the data."""
    rejected = pd.read_parquet(project / "data" / "rejected.parquet", columns=["reason"])["reason"]
    overview: dict[str, Any] = {"rejected": json.loads(rejected.value_counts().to_json())}
    return {"success": True, "overview": overview, "checks": []}


def _find_decided(
    registry: Registry, champion: VersionInfo, manifest_digest: str, params: Mapping[str, object]
) -> PublishResult | None:
    """Find a version equal to the one to be built on which the gate has decided: it was refused, or rolled back since.

    Args:
        registry: where to look.
        champion: version whose encoders are used.
        manifest_digest: digest of the data's manifest.
        params: parameters of the index to be built.
    """
    content = {"manifest.digest": manifest_digest, "encoder.digest": champion.tags.get("encoder.digest")}
    for info in registry.list_versions():
        if "gate.promote" not in info.tags or any(info.tags.get(name) != content[name] for name in content):
            continue
        try:
            version_params = registry.get_artifacts(info.version).load_params()
        except UnreadableFiles:
            continue
        if version_params == params:
            return PublishResult.from_tags(info.version, info.tags, new=False, champion=False)
    return None


def _package(
    champion: VersionInfo, params: Params, project: Path, *, lineage: dict[str, object], is_trained: bool
) -> None:
    """Write what stage `package` would write, without the encoders, which are registered already."""
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
    validation = read_validation(project / VALIDATION) if is_trained else summary_without_checks(project)
    new_lineage = index_lineage(work / "index", out, data / MANIFEST, validation)
    write_json(work / "package" / LINEAGE, lineage | git_state() | new_lineage)
