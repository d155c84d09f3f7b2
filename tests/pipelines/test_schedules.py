"""Schedules fire and our deployment is accepted: neither is so where SQLAlchemy or fastapi is too new."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.pipelines.conftest import Server, started, stopped

ROOT = Path(__file__).parents[2]
FIRES_SECONDS = 400

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # seconds, for a machine with other work

TINY = """
from pathlib import Path

from prefect import flow


@flow
def tick():
    with Path("ticks").open("a") as file:
        file.write("tick\\n")
"""
DEPLOYMENT = """
name: tiny
deployments:
  - name: often
    entrypoint: tiny.py:tick
    work_pool: {{name: cots}}
    schedules:
      - {{interval: 60, anchor_date: "{first}"}}
"""


def prefect(server: Server, folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=server.environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pool(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    prefect(server, tmp_path_factory.mktemp("pool"), "work-pool", "create", "cots", "--type", "process")
    return "cots"


@pytest.fixture
def worker(server: Server, pool: str, tmp_path: Path) -> Iterator[Path]:
    """A worker of the pool; the file that it writes to."""
    log = tmp_path / "worker.log"
    command = ("prefect", "worker", "start", "--pool", pool, "--type", "process", "--limit", "1")
    process = started(*command, cwd=tmp_path, environment=server.environment, log=log)
    yield log
    stopped(process)


def test_an_interval_schedule_fires_and_its_run_completes(server: Server, worker: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY)
    # The runs are a minute apart, so that they do not pile up on a busy machine.
    first = datetime.now(UTC) + timedelta(seconds=10)
    (tmp_path / "prefect.yaml").write_text(DEPLOYMENT.format(first=first.isoformat()))
    prefect(server, tmp_path, "deploy", "--all")
    deadline = time.monotonic() + FIRES_SECONDS
    while not (completed := [run for run in server.runs("tick") if run["state_type"] == "COMPLETED"]):
        states = [run["state_name"] for run in server.runs("tick")]
        assert "FAILED" not in states, worker.read_text()
        assert time.monotonic() < deadline, f"{states}\n{worker.read_text()}"
        time.sleep(0.5)
    assert completed[0]["auto_scheduled"]
    assert (tmp_path / "ticks").read_text().startswith("tick\n")


def test_the_deployment_of_the_project_is_accepted_and_scheduled(server: Server, pool: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "prefect.yaml", tmp_path)
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    prefect(server, tmp_path, "deploy", "--all")
    [found] = server.ask("/deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    assert found["entrypoint"] == "pipelines/retrain.py:retrain"
    assert found["work_pool_name"] == pool
    assert [one["schedule"]["interval"] for one in found["schedules"]] == [86400.0]
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "ENQUEUE"
