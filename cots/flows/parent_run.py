"""The MLflow run of a whole flow run, under which the stages put theirs."""

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
from cots.tracking.runs import connect, experiment_id, mlflow_errors, tracking_uri, without_credentials

VARIABLE = "COTS_PARENT_RUN"  # cots.tracking.runs reads it
FOLDER = "flow.folder"


@contextmanager
def parent_run(name: str) -> Iterator[None]:
    """An MLflow run around the stages; it ends as they do.

    Raises:
        RunFailed: MLflow is down when the run is to begin.
    """
    client = connect()
    with mlflow_errors():
        run = client.create_run(experiment_id(client), run_name=name, tags={FOLDER: _folder()}).info.run_id
    os.environ[VARIABLE] = run
    try:
        yield
    except BaseException:
        _end(client, run, RunStatus.FAILED)
        raise
    else:
        _end(client, run, RunStatus.FINISHED)
    finally:
        del os.environ[VARIABLE]


def end_open_runs() -> None:
    """End the MLflow runs of this folder that were left open, by a kill or because MLflow was down.

    The caller holds the folder, so they belong to no living process.

    Raises:
        RunFailed: MLflow is down.
    """
    client = connect()
    with mlflow_errors():
        experiment = experiment_id(client)
        for parent in _open_runs(client, experiment, f"tags.`{FOLDER}` = '{_folder()}'"):
            children = _open_runs(client, experiment, f"tags.mlflow.parentRunId = '{parent}'")
            for run in [*children, parent]:
                client.set_terminated(run, RunStatus.to_string(RunStatus.KILLED))


def run_page(run: str) -> str:
    """Where a run is looked at: a link where MLflow is a server, else the run's id."""
    address = tracking_uri()
    if not address.startswith("http"):
        return f"`{run}`"
    return f"[{run}]({without_credentials(address)}/#/experiments/{experiment_id(connect())}/runs/{run})"


def _open_runs(client: MlflowClient, experiment: str, having: str) -> list[str]:
    found = client.search_runs([experiment], f"attributes.status = 'RUNNING' and {having}")
    return [run.info.run_id for run in found]


def _folder() -> str:
    return text_digest(f"{socket.gethostname()}:{Path.cwd()}")


def _end(client: MlflowClient, run: str, status: int) -> None:
    """What became of the stages matters more than a server that cannot be told of it."""
    try:
        client.set_terminated(run, RunStatus.to_string(status))
    except MlflowException as error:
        get_run_logger().warning("MLflow run %s stays open: %s", run, str(error).splitlines()[0])
