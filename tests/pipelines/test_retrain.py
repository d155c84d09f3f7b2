"""The flow over a real DVC repository with toy stages and a real registry."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from tests.pipelines.conftest import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # seconds, for a machine with other work

PIPELINE = """
stages:
  evaluate:
    cmd: cp data.txt figures.txt && echo once >> evaluated
    deps: [data.txt]
    outs: [figures.txt]
  package:
    cmd: cp -r {package} package && cp figures.txt package/index/figures.txt
    deps: [figures.txt]
    outs: [package]
"""
SLOW = """
stages:
  package:
    cmd: echo $$ > pid && exec sleep 600
    outs: [package]
"""


@pytest.fixture
def project(tmp_path: Path, tiny_package: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "data.txt").write_text("one")
    (folder / "dvc.yaml").write_text(PIPELINE.format(package=tiny_package))
    (folder / "params.yaml").write_text("{}")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    dvc(folder, "init", "-q")
    dvc(folder, "config", "core.analytics", "false")
    return folder


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


def environment(server: Server, store: str) -> dict[str, str]:
    return server.environment | {"MLFLOW_TRACKING_URI": store}


def retrain(folder: Path, server: Server, store: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.retrain"],
        cwd=folder,
        env=environment(server, store),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def versions() -> list[int]:
    return sorted(int(one.version) for one in mlflow.MlflowClient().search_model_versions("name = 'cots-index'"))


def test_every_run_brings_the_pipeline_up_to_date_and_publishes_what_is_new(
    project: Path, server: Server, store: str
) -> None:
    for data, expected in (("one", [1]), ("two", [1, 2])):
        (project / "data.txt").write_text(data)
        done = retrain(project, server, store)
        assert done.returncode == 0, done.stderr
        assert versions() == expected
    assert (project / "evaluated").read_text().splitlines() == ["once", "once"]


def test_with_a_remote_what_was_made_is_fetched_not_made_and_not_published_again(
    project: Path, server: Server, store: str, tmp_path: Path
) -> None:
    dvc(project, "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    done = retrain(project, server, store)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "remote").rglob("*"))
    for made in (".dvc/cache", "package"):
        shutil.rmtree(project / made)
    (project / "figures.txt").unlink()
    (project / "evaluated").unlink()
    done = retrain(project, server, store)
    assert done.returncode == 0, done.stderr
    assert not (project / "evaluated").exists()
    assert (project / "package" / "lineage.json").is_file()
    assert versions() == [1]


def test_a_stage_that_fails_fails_the_run_with_its_reason_and_publishes_nothing(
    project: Path, server: Server, store: str
) -> None:
    (project / "data.txt").unlink()
    done = retrain(project, server, store)
    assert done.returncode != 0
    assert "dvc repro package` ended with exit code" in done.stderr
    assert server.runs("retrain")[0]["state_type"] == "FAILED"
    assert not mlflow.MlflowClient().search_registered_models()


def test_a_cancelled_run_leaves_no_stage_behind(project: Path, server: Server, store: str) -> None:
    (project / "dvc.yaml").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.retrain"],
        cwd=project,
        env=environment(server, store),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    waited_for(lambda: (project / "pid").is_file() and (project / "pid").read_text().strip() != "")
    stage = int((project / "pid").read_text())
    assert alive(stage)
    process.send_signal(signal.SIGTERM)
    process.wait(200)
    waited_for(lambda: not alive(stage))


def waited_for(condition: Callable[[], bool], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
