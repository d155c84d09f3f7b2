"""The servers that use PostgreSQL, MLflow and Prefect, and a worker for the project's work pool."""

import base64
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
from cots.flows.local.processes import ManagedProcess
from cots.flows.local.settings import HOST, Settings

POOL = "cots"
QUEUE = {"name": "folder", "concurrency_limit": 1}  # flows that write to the project folder run one at a time
ANSWER_SECONDS = 10
UNFINISHED = ("PENDING", "RUNNING", "CANCELLING")


def mlflow_server(settings: Settings, postgres: Postgres) -> ManagedProcess:
    """MLflow server: runs and models in PostgreSQL, artefacts in the state folder, served by MLflow itself."""
    listen = ("--host", HOST, "--port", str(settings.ports.mlflow), "--workers", "1")
    files = ("--artifacts-destination", (settings.folder / "artifacts").as_uri())
    environment = settings.environment() | {
        "MLFLOW_BACKEND_STORE_URI": postgres.address("postgresql", "mlflow"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 0.5 GB in 2 processes instead of 1.1 GB in 10
    }
    command = (sys.executable, "-m", "mlflow", "server", *listen, *files)
    health = f"{settings.tracking_uri}/health"
    return ManagedProcess(
        "mlflow", command, environment, settings.ports.mlflow, lambda: _answers(health), signal.SIGTERM
    )


def prefect_server(settings: Settings, postgres: Postgres) -> ManagedProcess:
    """Prefect server: deployments, schedules, states and logs, in PostgreSQL.

    It runs any command in its deployments, so it needs the log-in, and no page but its own may use it from a browser.
    """
    environment = settings.environment()
    environment |= {
        "PREFECT_SERVER_API_AUTH_STRING": environment["PREFECT_API_AUTH_STRING"],
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": settings.api_url.removesuffix("/api"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgres.address("postgresql+asyncpg", "prefect"),
    }
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
    health = f"{settings.api_url}/ready"  # /health does not check the database
    return ManagedProcess(
        "prefect", command, environment, settings.ports.prefect, lambda: _answers(health), signal.SIGINT
    )


def worker(settings: Settings) -> ManagedProcess:
    """Worker that starts the runs of the deployments in the project folder."""
    command = (sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process")
    return ManagedProcess("worker", command, settings.environment(), None, lambda: _has_worker(settings), signal.SIGINT)


def deploy(settings: Settings, project: Path) -> None:
    """Create the work pool and its queue if they are missing, and apply the deployments of prefect.yaml.

    Raises:
        RunFailed: Prefect refuses; the message says why.
    """
    _create(settings, "/work_pools/", {"name": POOL, "type": "process"})
    _create(settings, f"/work_pools/{POOL}/queues", QUEUE)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = settings.environment()
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RunFailed(f"`prefect deploy --all` failed: {(done.stdout + done.stderr).strip()}")


def end_lost_runs(settings: Settings) -> list[str]:
    """Mark runs as crashed whose process is gone but which Prefect counts as unfinished, as they block the queue.

    Call only while no worker runs: a worker reports its own runs.

    Returns:
        Names of these runs.
    """
    unfinished = {"flow_runs": {"state": {"type": {"any_": UNFINISHED}}, "deployment_id": {"is_null_": False}}}
    lost = [
        run for run in _request(settings, "/flow_runs/filter", unfinished) if not _is_alive(run["infrastructure_pid"])
    ]
    crashed = {"type": "CRASHED", "message": "the process was gone when the servers were started again"}
    for run in lost:
        _request(settings, f"/flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})
    return [run["name"] for run in lost]


def _is_alive(pid: str | None) -> bool:
    try:
        return "prefect" in " ".join(psutil.Process(int(pid)).cmdline()) if pid else False
    except psutil.Error:
        return False


def _has_worker(settings: Settings) -> bool:
    workers = _request(settings, f"/work_pools/{POOL}/workers/filter", {})
    return any(worker["status"] == "ONLINE" for worker in workers)


def _create(settings: Settings, path: str, body: object) -> None:
    try:
        _request(settings, path, body)
    except urllib.error.HTTPError as error:
        if error.code != 409:  # it exists already
            raise RunFailed(f"Prefect refuses {body}: {error.read().decode()[:300]}") from None


def _request(settings: Settings, path: str, body: object) -> Any:  # noqa: ANN401  any JSON value
    login = base64.b64encode(settings.login_file.read_bytes()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
    request = urllib.request.Request(f"{settings.api_url}{path}", json.dumps(body).encode(), headers)  # noqa: S310  our own server's
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:  # noqa: S310
        return json.load(response)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=ANSWER_SECONDS).close()  # noqa: S310
    except (OSError, HTTPException):
        return False
    return True
