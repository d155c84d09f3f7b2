"""Registers a package on its own, and sets up projects with a champion."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import chdir
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import yaml
from PIL import Image

from cots.config.gate import GateConfig
from cots.config.params import Params
from cots.config.sections import read_yaml
from cots.models.dual_encoder import DualEncoder
from cots.registry.challenger import ChallengerEvaluator
from cots.registry.client import INDEX
from cots.registry.publishing import publish
from cots.registry.registry import PublishResult, Registry
from cots.stages.package import stage
from cots.tracking.store import get_or_create_experiment
from tests.conftest import COLOURS, ranked, tracked_in

ROOT = Path(__file__).parents[1]
FOREIGN = [f"buy {what} for a low price near the town hall" for what in ("shoes", "boats", "cars", "hats", "cups")]
RULES = GateConfig(min_recall=0.9, bootstrap_resamples=200)


def not_expected(model: DualEncoder) -> pd.DataFrame:
    raise AssertionError("the champion was evaluated again on the same queries")


def register(
    registry: Registry, package: Path, rank_queries: Callable[[DualEncoder], pd.DataFrame] = not_expected
) -> PublishResult:
    """Publish a package without a project, with `RULES` for the gate."""
    return registry.publish(package, Path("runs"), Path("dvc.lock"), evaluator=ChallengerEvaluator(RULES, rank_queries))


def registered_in(store: str | Path, package: Path) -> Path:
    """Publish a package without a project in a SQLite store; return the path of the store."""
    with tracked_in(Path(store)), chdir(Path(store).parent):
        register(Registry(), package)
    return Path(store)


def measured(package: Path, folder: Path, *, recall: float) -> Path:
    """A copy of the package with a recall of `recall` per cent on its registered queries."""
    copy = shutil.copytree(package, folder)
    ranked(recall).to_parquet(copy / "evidence" / "queries.parquet")
    return copy


def reindexed(package: Path, folder: Path) -> Path:
    """A copy of the package with another index: the encoders are the same."""
    copy = shutil.copytree(package, folder)
    (copy / "index" / "artifacts" / "index" / "note.txt").write_text("another")
    return copy


def add_version_without_files() -> None:
    """Register what version 1 is, as it would be after its files were lost."""
    client = mlflow.MlflowClient()
    run = client.create_run(get_or_create_experiment(client)).info
    client.create_model_version(
        INDEX, f"{run.artifact_uri}/{INDEX}", run.run_id, tags=dict(client.get_model_version(INDEX, "1").tags)
    )


def aliases(name: str) -> dict[str, int]:
    versions = mlflow.MlflowClient().get_registered_model(name).aliases
    return {alias: int(version) for alias, version in versions.items()}


def deploy(project: Path, *, data: Path, model: Path, source: Path) -> None:
    """Publish a package of `model` as if trained on `data`, with drift limits for a handful of samples.

    Args:
        project: a new folder, which must be the working folder; the environment names the MLflow store.
        data: output of stage `prepare`.
        model: the encoders; source: a project with their index and reports.
    """
    shutil.copytree(data, project / "data")
    params: dict[str, Any] = read_yaml(ROOT / "params.yaml")
    params["drift"] |= {"min_rows": 4, "permutations": 199}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    loaded_params = Params.load(project / "params.yaml")
    reports, manifest = source / "reports", project / "data/manifest.parquet"
    measured = (reports / "metrics.json", reports / "evaluation", reports / "validation")
    stage(model, source / "index", *measured, manifest, project / "package", params=loaded_params)
    publish(loaded_params, project)


def squares_project(folder: Path, package: Path, python: str) -> Path:
    """A DVC repository with this project's pipeline, plain squares as data, and a copy of `package`.

    `python` runs DVC.
    """
    shutil.copytree(ROOT / "cots", folder / "cots", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "suspects.csv", "verdicts.csv", "withdrawn.csv", "changes.jsonl"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(package, folder / "package")
    (folder / "pictures").mkdir()
    rows = ["image,caption,split"]
    for place, colour in enumerate(COLOURS):
        for side, split in ((32, "train"), (48, "test")):
            name = f"{colour}{side}.png"
            Image.new("RGB", (side, 32 + place), colour).save(folder / "pictures" / name)
            rows.append(f"{name},a {colour} thing of {side},{split}")
    (folder / "pictures" / "captions.csv").write_text("\n".join(rows) + "\n")
    params: dict[str, Any] = read_yaml(ROOT / "params.yaml")
    params["source"] = {"kind": "folder", "path": "pictures", "seed": 0, "holdout": {"val": 0.0, "test": 0.0}}
    params["validate"] |= {"max_duplicates": 1.0, "max_leakage": 1.0}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run([python, "-m", "dvc", "init", "-q"], cwd=folder, check=True)
    return folder


def write_log(path: Path, model: DualEncoder, texts: Sequence[str]) -> None:
    """Write a query log in the service's format; its last line is truncated."""
    start, lines = datetime(2026, 11, 1, tzinfo=UTC), []
    for number, (text, vector) in enumerate(zip(texts, model.encode_texts(texts, batch_size=8), strict=True)):
        when = (start + timedelta(seconds=number)).isoformat()
        encoded = base64.b64encode(vector.astype("<f2").tobytes()).decode()
        own = {"when": when, "kind": "text", "text": text, "index_version": 1}
        lines.append(json.dumps(own | {"encoders_digest": model.digest, "vector": encoded}))
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([*lines, lines[0][:40]]) + "\n")
