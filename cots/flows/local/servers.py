"""What runs on PostgreSQL: MLflow, Prefect and a worker of the project's work pool."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil

from cots.errors import RunFailed
from cots.flows.local.postgres import Postgres
from cots.flows.local.processes import Service
from cots.flows.local.settings import HOST, Settings

POOL = "cots"
QUEUE = {"name": "folder", "concurrency_limit": 1}  # what uses the project's folder: one at a time, the next one waits
ANSWER_SECONDS = 10
UNFINISHED = ("PENDING", "RUNNING", "CANCELLING")


def mlflow_server(settings: Settings, postgres: Postgres) -> Service:
    """Runs and models in PostgreSQL, files in the state folder, served by the server."""
    place = ("--host", HOST, "--port", str(settings.ports.mlflow), "--workers", "1")
    files = ("--artifacts-destination", (settings.folder / "artifacts").as_uri())
    environment = settings.environment() | {
        "MLFLOW_BACKEND_STORE_URI": postgres.address("postgresql", "mlflow"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 0.5 GB in 2 processes instead of 1.1 GB in 10
    }
    command = (sys.executable, "-m", "mlflow", "server", *place, *files)
    health = f"{settings.tracking_uri}/health"
    return Service("mlflow", command, environment, settings.ports.mlflow, lambda: _answers(health), signal.SIGTERM)


def prefect_server(settings: Settings, postgres: Postgres) -> Service:
    """Deployments, schedules, states and logs."""
    address = postgres.address("postgresql+asyncpg", "prefect")
    environment = settings.environment() | {"PREFECT_SERVER_DATABASE_CONNECTION_URL": address}
    command = (
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        HOST,
        "--port",
        str(settings.ports.prefect),
    )
    health = f"{settings.api_url}/ready"  # /health says nothing of the database
    return Service("prefect", command, environment, settings.ports.prefect, lambda: _answers(health), signal.SIGINT)


def worker(settings: Settings) -> Service:
    """Starts the runs of the deployments in the project's folder."""
    command = (sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process")
    return Service("worker", command, settings.environment(), None, lambda: _has_worker(settings), signal.SIGINT)


def deploy(settings: Settings, project: Path) -> None:
    """Make the work pool and its queue where they are missing, and bring the deployments of prefect.yaml up to date.

    Raises:
        RunFailed: Prefect refuses; tells why.
    """
    _made(settings, "/work_pools/", {"name": POOL, "type": "process"})
    _made(settings, f"/work_pools/{POOL}/queues", QUEUE)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = settings.environment()
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RunFailed(f"`prefect deploy --all` failed: {(done.stdout + done.stderr).strip()}")


def end_lost_runs(settings: Settings) -> list[str]:
    """Tell Prefect of runs that it thinks are going on and whose process is gone, for they would block the queue.

    Only while no worker runs: it tells of its own.

    Returns:
        Their names.
    """
    wanted = {"flow_runs": {"state": {"type": {"any_": UNFINISHED}}, "deployment_id": {"is_null_": False}}}
    lost = [run for run in _ask(settings, "/flow_runs/filter", wanted) if not _lives(run["infrastructure_pid"])]
    crashed = {"type": "CRASHED", "message": "its process was gone when the platform was started again"}
    for run in lost:
        _ask(settings, f"/flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})
    return [run["name"] for run in lost]


def _lives(pid: str | None) -> bool:
    try:
        return "prefect" in " ".join(psutil.Process(int(pid)).cmdline()) if pid else False
    except psutil.Error:
        return False


def _has_worker(settings: Settings) -> bool:
    workers = _ask(settings, f"/work_pools/{POOL}/workers/filter", {})
    return any(found["status"] == "ONLINE" for found in workers)


def _made(settings: Settings, path: str, body: object) -> None:
    try:
        _ask(settings, path, body)
    except urllib.error.HTTPError as error:
        if error.code != 409:  # it is there
            raise RunFailed(f"Prefect refuses {body}: {error.read().decode()[:300]}") from None


def _ask(settings: Settings, path: str, body: object) -> Any:  # noqa: ANN401  whatever JSON holds
    request = urllib.request.Request(  # noqa: S310  our own server's
        f"{settings.api_url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
        return json.load(answer)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=ANSWER_SECONDS).close()  # noqa: S310
    except (OSError, HTTPException):
        return False
    return True
