"""Publishes a package: registers it, lets the gate decide, and writes the decision to a file."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from cots.config.params import Params
from cots.data.manifest import read_manifest, select_part
from cots.data.stored_samples import read_stored_samples
from cots.directions import MEDIA_OF
from cots.evaluation.embedding import embed
from cots.evaluation.retrieval import evaluate_retrieval, query_rows
from cots.file_names import MANIFEST
from cots.files import write_json
from cots.models.dual_encoder import DualEncoder
from cots.project_files import LOCK_FILE
from cots.registry.challenger import ChallengerEvaluator
from cots.registry.registry import PublishResult, Registry

GATE = Path("reports/gate.json")


def publish(params: Params, project: Path = Path()) -> PublishResult:
    """Register the `package/` folder of a project, promote it if the gate accepts it, and write the decision to `GATE`.

    Args:
        params: parameters of the project.
        project: its folder.

    Raises:
        BadInput: there is no package, or an input is missing.
        RunFailed: MLflow is down or refuses, or another promotion happened at the same time.
    """
    return publish_package(project / "package", build_evaluator(params, project), project, runs=project / "runs")


def publish_package(package: Path, evaluator: ChallengerEvaluator, project: Path, *, runs: Path) -> PublishResult:
    """Register a package with its MLflow runs and write the decision to the project's `GATE` file."""
    result = Registry().publish(package, runs, project / LOCK_FILE, evaluator=evaluator)
    (project / GATE).parent.mkdir(exist_ok=True)
    write_json(project / GATE, asdict(result))
    return result


def build_evaluator(params: Params, project: Path) -> ChallengerEvaluator:
    """An evaluator with the project's gate thresholds and current test queries."""
    return ChallengerEvaluator(params.gate, lambda model: _rank_queries(model, params, project / "data"))


def _rank_queries(model: DualEncoder, params: Params, data: Path) -> pd.DataFrame:
    """Rank the current test queries with a model."""
    config, media = params.evaluate, MEDIA_OF[params.index.target]
    rows = select_part(read_manifest(data / MANIFEST), config.split, media)
    embedded = embed(model, read_stored_samples(data / "shards", rows), batch_size=config.batch_size)
    result = evaluate_retrieval(embedded, media=media, folds=1, resamples=1, seed=config.seed)
    return pd.DataFrame(query_rows(embedded, result))
