"""The MLflow run of a whole flow run, with all parameters; the runs of its stages are nested under it."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from prefect import get_run_logger

from cots.digests import text_digest
from cots.tracking.git import git_state
from cots.tracking.pipeline_run import PARENT_RUN, create_pipeline_run
from cots.tracking.store import connect, get_or_create_experiment, mlflow_errors, tracking_uri, without_credentials

FOLDER = "flow.folder"


@contextmanager
def parent_run(name: str) -> Iterator[None]:
    """Open an MLflow run around the stages; it finishes or fails as they do.

    Raises:
        RunFailed: MLflow is down when the run is opened.
    """
    client = connect()
    with mlflow_errors():
        tags = {FOLDER: _folder_digest()} | git_state()
        run = create_pipeline_run(client, get_or_create_experiment(client), name, tags)
    os.environ[PARENT_RUN] = run
    try:
        yield
    except BaseException:
        _end(client, run, RunStatus.FAILED)
        raise
    else:
        _end(client, run, RunStatus.FINISHED)
    finally:
        del os.environ[PARENT_RUN]


def end_open_runs() -> None:
    """Mark as killed the MLflow runs of this folder that a kill or an MLflow outage left open.

    The caller holds the folder's lock, so no living process owns these runs.

    Raises:
        RunFailed: MLflow is down.
    """
    client = connect()
    with mlflow_errors():
        experiment = get_or_create_experiment(client)
        for parent in _open_runs(client, experiment, f"tags.`{FOLDER}` = '{_folder_digest()}'"):
            children = _open_runs(client, experiment, f"tags.mlflow.parentRunId = '{parent}'")
            for run in [*children, parent]:
                client.set_terminated(run, RunStatus.to_string(RunStatus.KILLED))


def format_run_link(run: str) -> str:
    """Markdown for a run: a link to MLflow's UI if MLflow is a server, otherwise the run id."""
    uri = tracking_uri()
    if not uri.startswith("http"):
        return f"`{run}`"
    return f"[{run}]({without_credentials(uri)}/#/experiments/{get_or_create_experiment(connect())}/runs/{run})"


def _open_runs(client: MlflowClient, experiment: str, condition: str) -> list[str]:
    runs = client.search_runs([experiment], f"attributes.status = 'RUNNING' and {condition}")
    return [run.info.run_id for run in runs]


def _folder_digest() -> str:
    return text_digest(f"{socket.gethostname()}:{Path.cwd()}")


def _end(client: MlflowClient, run: str, status: int) -> None:
    """Close the run; if MLflow fails, only log it, because the outcome of the stages matters more."""
    try:
        client.set_terminated(run, RunStatus.to_string(status))
    except MlflowException as error:
        get_run_logger().warning("MLflow run %s stays open: %s", run, str(error).splitlines()[0])
