"""The flow over a real DVC repository with toy stages and a real registry."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pytest

from cots.flows.alerts import REFUSED
from tests.conftest import ranked
from tests.flows.conftest import PIPELINE, Server, alive, dvc
from tests.servers import waited_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # seconds, for a machine with other work

SLOW = """
stages:
  package:
    cmd: echo $$ > pid && exec sleep 600
    outs: [package]
"""


def retrain(folder: Path, server: Server, store: str, **parameters: object) -> subprocess.CompletedProcess[str]:
    process = begun(server.python, folder, server, store, **parameters)
    output, _ = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, output, output)


def begun(python: str, folder: Path, server: Server, store: str, **parameters: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-c", f"from cots.flows.retrain import retrain; retrain(**{parameters})"],
        cwd=folder,
        env=server.environment | {"MLFLOW_TRACKING_URI": store},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def begun_stage(python: str, project: Path, server: Server, store: str) -> tuple[subprocess.Popen[str], int]:
    """Start a run with a long stage; return its process and the stage's pid."""
    (project / "dvc.yaml").write_text(SLOW)
    process = begun(python, project, server, store)
    waited_for(lambda: (project / "pid").is_file() and (project / "pid").read_text().strip() != "")
    stage = int((project / "pid").read_text())
    assert alive(stage)
    return process, stage


def last_run(server: Server) -> tuple[str, str, str]:
    """State, message and artifact of the newest run."""
    run = server.runs("retrain")[0]
    return run["state_name"], run["state"]["message"], server.page(run["id"])


def versions() -> list[int]:
    return sorted(
        int(version.version) for version in mlflow.MlflowClient().search_model_versions("name = 'cots-index'")
    )


@pytest.fixture(scope="module")
def first_run(
    tmp_path_factory: pytest.TempPathFactory,
    toy_project: Callable[[Path], Path],
    server: Server,
    empty_store: Path,
) -> Path:
    """A folder with a project after its first run, and the store with its published version."""
    folder = tmp_path_factory.mktemp("first")
    shutil.copy(empty_store, folder / "mlflow.db")
    done = retrain(toy_project(folder / "project"), server, f"sqlite:///{folder / 'mlflow.db'}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def published(tmp_path: Path, store: str, first_run: Path) -> Path:
    """A project for one test after its first run; version 1 in `store` is the champion."""
    shutil.copy(first_run / "mlflow.db", store.removeprefix("sqlite:///"))
    assert versions() == [1]
    return Path(shutil.copytree(first_run / "project", tmp_path / "project", symlinks=True))


def test_every_run_brings_the_pipeline_up_to_date_and_publishes_what_is_new(
    published: Path, server: Server, store: str
) -> None:
    project = published
    (project / "data.txt").write_text("two")
    done = retrain(project, server, store)
    assert done.returncode == 0, done.stderr
    assert versions() == [1, 2]
    state, message, page = last_run(server)
    assert (state, message.split(";")[0]) == ("Completed", "cots-index version 2 registered")
    assert "**Stale stages at the start:** evaluate" in page
    assert "| evaluate | ran |" in page
    assert "| metric | this version | version 1 | difference |" in page
    assert "same encoders as the champion" in page
    runs = mlflow.search_runs(experiment_names=["cots"], output_format="list")
    assert {run.info.status for run in runs} == {"FINISHED"}
    [_, flow_run] = sorted((run for run in runs if "flow.folder" in run.data.tags), key=lambda run: run.info.start_time)
    assert flow_run.data.params["index.target"] == "image-text"

    done = retrain(project, server, store)
    assert done.returncode == 0, done.stderr
    state, message, page = last_run(server)
    assert message.startswith("no stage was stale: cots-index version 2 was registered already")
    assert "| evaluate" not in page
    assert versions() == [1, 2]
    assert (project / "evaluated").read_text().splitlines() == ["once", "once"]


def test_a_mistake_in_a_late_section_ends_the_run_before_the_first_stage(
    project: Path, server: Server, store: str
) -> None:
    with (project / "params.yaml").open("a") as file:
        file.write("drfit: {}\n")
    done = retrain(project, server, store)
    assert done.returncode != 0
    state, message, page = last_run(server)
    assert state == "Failed"
    assert "drfit: Extra inputs are not permitted" in message
    assert "drfit: Extra inputs are not permitted" in page
    assert not (project / "evaluated").exists()


def test_a_worse_package_is_registered_and_refused_and_the_page_says_why(
    published: Path, server: Server, store: str, tmp_path: Path, other_package: Path
) -> None:
    project, worse = published, tmp_path / "worse"
    shutil.copytree(other_package, worse)
    ranked(20.0).to_parquet(worse / "evidence" / "queries.parquet")
    lineage = json.loads((worse / "lineage.json").read_text())
    lineage["metrics"][lineage["target"]]["rsum"] = 120.0
    (worse / "lineage.json").write_text(json.dumps(lineage))
    (project / "dvc.yaml").write_text(PIPELINE.format(package=worse))
    (project / "data.txt").write_text("two")
    start = datetime.now(UTC)
    done = retrain(project, server, store)
    assert done.returncode == 0, done.stderr
    assert versions() == [1, 2]
    assert int(mlflow.MlflowClient().get_model_version_by_alias("cots-index", "champion").version) == 1
    _, message, page = last_run(server)
    assert "it is not the champion" in message
    assert "**cots-index version 2:** mean recall" in page
    assert "allowed -5) may be worse" in page
    [figures] = [line for line in page.splitlines() if line.startswith("| rsum |")]
    assert figures.endswith("| -120.000 |")
    [message] = waited_for(lambda: server.events(REFUSED, since=start), 30)
    assert message.startswith("cots-index version 2: mean recall")


def test_with_a_remote_what_was_made_is_fetched_not_made_and_not_published_again(
    project: Path, server: Server, store: str, tmp_path: Path
) -> None:
    dvc(server.python, project, "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    done = retrain(project, server, store)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "remote").rglob("*"))
    for path in (".dvc/cache", "package"):
        shutil.rmtree(project / path)
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
    state, message, page = last_run(server)
    assert state == "Failed"
    assert "dvc repro evaluate` ended with exit code" in message
    assert "dvc repro evaluate\\` ended with exit code" in page
    [run] = mlflow.search_runs(experiment_names=["cots"], output_format="list")
    assert run.info.status == "FAILED"
    assert not mlflow.MlflowClient().search_registered_models()


@pytest.mark.parametrize("truncated", ["", "schema: '2.0'\nstages:\n  evaluate:\n"])
def test_a_lock_that_dvc_was_killed_over_is_the_one_before_again(
    published: Path, server: Server, store: str, truncated: str
) -> None:
    (published / "data.txt").write_text("two")
    (published / "dvc.lock").write_text(truncated)
    done = retrain(published, server, store)
    assert done.returncode == 0, done.stdout
    assert "dvc.lock could not be read: continuing from its backup" in done.stdout
    assert versions() == [1, 2]


def test_an_invalid_dvc_file_is_reported_and_left_alone(published: Path, server: Server, store: str) -> None:
    before = (published / "dvc.lock").read_bytes()
    (published / "dvc.yaml").write_text("stages: 7\n")
    done = retrain(published, server, store)
    assert done.returncode != 0
    assert "`dvc status --json` ended with exit code" in done.stdout
    assert (published / "dvc.lock").read_bytes() == before


def test_a_cancelled_run_leaves_no_stage_behind(project: Path, server: Server, store: str) -> None:
    process, stage = begun_stage(server.python, project, server, store)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=200)
    waited_for(lambda: not alive(stage))


def test_a_second_run_is_told_who_uses_the_folder_and_one_after_a_killed_run_waits_for_its_stage_to_end(
    project: Path, server: Server, store: str
) -> None:
    process, stage = begun_stage(sys.executable, project, server, store)  # tells its own number
    second = retrain(project, server, store)
    assert second.returncode != 0
    assert f"{project} is in use by run " in second.stderr
    assert f"(process {process.pid}, since " in second.stderr
    process.kill()
    process.communicate(timeout=200)
    (project / "dvc.yaml").write_text(SLOW.replace("exec sleep 600", f"! kill -0 {stage}"))
    third = retrain(project, server, store)
    assert "failed to reproduce 'package': output 'package' does not exist" in third.stderr
    assert not alive(stage)


def test_a_run_that_takes_too_long_is_ended_with_its_stage(project: Path, server: Server, store: str) -> None:
    (project / "dvc.yaml").write_text(SLOW)
    for seconds in (15, 60, 240):  # long enough for the stage to begin, on a busy machine too
        assert retrain(project, server, store, hours=seconds / 3600).returncode != 0
        if (project / "pid").is_file():
            break
    state, _, page = last_run(server)
    assert state == "TimedOut"
    assert "TimeoutError" in page
    assert not alive(int((project / "pid").read_text()))
