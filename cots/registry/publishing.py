"""Publishing what the pipeline made: one function for `cots registry publish` and for the flow."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from cots.config.params import Params
from cots.data.manifest import part, read_manifest
from cots.data.stored_samples import read_stored_samples
from cots.directions import MEDIA_OF
from cots.evaluation.embedding import embed
from cots.evaluation.retrieval import evaluate_retrieval, query_rows
from cots.file_names import MANIFEST
from cots.files import write_json
from cots.models.dual_encoder import DualEncoder
from cots.registry.challenger import ChallengerEvaluator
from cots.registry.registry import Published, Registry

GATE = Path("reports/gate.json")


def publish(params: Params, project: Path = Path()) -> Published:
    """Register `package/` of a project and promote it if the gate lets it pass; the decision goes to `GATE` too.

    Args:
        params: the project's.
        project: its folder.

    Raises:
        BadInput: nothing is packaged, or an input is missing.
        RunFailed: MLflow is down or refuses, or another promotion came first.
    """
    return published(project / "package", judge_of(params, project), project, runs=project / "runs")


def published(package: Path, judge: ChallengerEvaluator, project: Path, *, runs: Path) -> Published:
    """Register any package with the runs that made it, and write the decision down in the project."""
    done = Registry().publish(package, runs, project / "dvc.lock", judge=judge)
    (project / GATE).parent.mkdir(exist_ok=True)
    write_json(project / GATE, asdict(done))
    return done


def judge_of(params: Params, project: Path) -> ChallengerEvaluator:
    """The judge by the project's rules and its present test queries."""
    return ChallengerEvaluator(params.gate, lambda model: _asked(model, params, project / "data"))


def _asked(model: DualEncoder, params: Params, data: Path) -> pd.DataFrame:
    """The ranks of the present test queries under a model."""
    settings, media = params.evaluate, MEDIA_OF[params.index.target]
    rows = part(read_manifest(data / MANIFEST), settings.split, media)
    embedded = embed(model, read_stored_samples(data / "shards", rows), batch=settings.batch_size)
    measured = evaluate_retrieval(embedded, media=media, folds=1, resamples=1, seed=settings.seed)
    return pd.DataFrame(query_rows(embedded, measured))
