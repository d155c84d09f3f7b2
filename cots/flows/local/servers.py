"""The servers that use PostgreSQL, MLflow and Prefect, and a worker for the project's work pool."""

import signal
import sys
import urllib.request
from http.client import HTTPException

import psutil

from cots.flows.local.deployments import ANSWER_SECONDS, POOL, ask_prefect
from cots.flows.local.postgres import Postgres
from cots.flows.local.processes import ManagedProcess
from cots.flows.local.settings import HOST, Settings

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
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": settings.prefect_page,
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


def end_lost_runs(settings: Settings) -> list[str]:
    """Mark runs as crashed whose process is gone but which Prefect counts as unfinished, as they block the queue.

    Call only while no worker runs: a worker reports its own runs.

    Returns:
        Names of these runs.
    """
    environment = settings.environment()
    unfinished = {"flow_runs": {"state": {"type": {"any_": UNFINISHED}}, "deployment_id": {"is_null_": False}}}
    runs = ask_prefect(environment, "/flow_runs/filter", unfinished)
    lost = [run for run in runs if not _is_alive(run["infrastructure_pid"])]
    crashed = {"type": "CRASHED", "message": "the process was gone when the servers were started again"}
    for run in lost:
        ask_prefect(environment, f"/flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})
    return [run["name"] for run in lost]


def _is_alive(pid: str | None) -> bool:
    try:
        return "prefect" in " ".join(psutil.Process(int(pid)).cmdline()) if pid else False
    except psutil.Error:
        return False


def _has_worker(settings: Settings) -> bool:
    workers = ask_prefect(settings.environment(), f"/work_pools/{POOL}/workers/filter", {})
    return any(worker["status"] == "ONLINE" for worker in workers)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=ANSWER_SECONDS).close()  # noqa: S310
    except (OSError, HTTPException):
        return False
    return True
