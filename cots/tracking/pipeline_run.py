"""The MLflow run of a whole pipeline, with all its parameters; the runs of its stages are nested under it."""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cots.config.sections import read_yaml
from cots.digests import file_digest, text_digest
from cots.flatten import flatten
from cots.project_files import PARAMS_FILE
from cots.tracking.git import git_state

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_RUN = "COTS_PARENT_RUN"  # variable of the environment: id of the run that a flow opens and ends
PARENT_TAG = "mlflow.parentRunId"  # MLflow's tag of a nested run
DIGEST = "pipeline.digest"  # tag: of what makes a run another one
NAME = "pipeline"
PARAMS_PER_CALL = 100  # MLflow's limit for one batch


def open_pipeline_run(client: "MlflowClient", experiment: str, manifest: Path) -> str | None:
    """The id of the run under which a stage's run is nested; None outside a project.

    The stages of one `dvc repro` share a run, and so does a repetition after a failure: it is the run of the same
    parameters, data and commit in the same folder. A flow has opened its own; there is none if somebody deleted that.
    """
    if flow_run := os.environ.get(PARENT_RUN):
        return flow_run if _is_active(client, flow_run) else None
    if not PARAMS_FILE.is_file():
        return None
    digest = _digest(manifest)
    same = client.search_runs([experiment], f"tags.`{DIGEST}` = '{digest}'", max_results=1)
    if not same:
        return create_pipeline_run(client, experiment, NAME, {DIGEST: digest} | git_state())
    run: str = same[0].info.run_id
    client.update_run(run, status="RUNNING")
    return run


def create_pipeline_run(client: "MlflowClient", experiment: str, name: str, tags: Mapping[str, str]) -> str:
    """Create a run with all parameters as params.yaml has them; return its id."""
    run: str = client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id
    content = read_yaml(PARAMS_FILE) if PARAMS_FILE.is_file() else None
    values = flatten(content) if isinstance(content, dict) else {}
    log_params(client, run, {name: _as_text(value) for name, value in values.items()})
    return run


def close_pipeline_run(client: "MlflowClient", run: str | None, *, failed: bool) -> None:
    """End the run that `open_pipeline_run` gave; that of a flow goes on."""
    if run and not os.environ.get(PARENT_RUN):
        client.set_terminated(run, "FAILED" if failed else "FINISHED")


def log_params(client: "MlflowClient", run: str, values: Mapping[str, str]) -> None:
    """Log parameters of any number."""
    from mlflow.entities import Param

    params = [Param(name, value) for name, value in values.items()]
    for start in range(0, len(params), PARAMS_PER_CALL):
        client.log_batch(run, params=params[start : start + PARAMS_PER_CALL])


def _is_active(client: "MlflowClient", run: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run).info.lifecycle_stage == "active")
    except MlflowException:
        return False


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _digest(manifest: Path) -> str:
    place, commit = f"{socket.gethostname()}:{Path.cwd()}", git_state().get("git.commit")
    return text_digest(json.dumps([place, commit, file_digest(PARAMS_FILE), file_digest(manifest)]))
