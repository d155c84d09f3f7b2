import json
import math
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from cots.config.params import Params
from cots.config.training import TrainConfig
from cots.data.manifest import SCHEMA, write_table
from cots.digests import file_digest
from cots.errors import RunFailed
from cots.tracking import live_curves
from cots.tracking.live_curves import LiveCurves
from cots.tracking.runs import flatten_params, start_run
from cots.tracking.store import connect

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> Path:
    monkeypatch.chdir(tmp_path)
    write_manifest(tmp_path / "manifest.parquet")
    return tmp_path


def write_manifest(path: Path, train: int = 2) -> None:
    """A manifest of some images with two captions each for training, and one for testing."""
    splits = ["train"] * train + ["test"]
    rows: list[dict[str, object]] = [
        {"id": str(number), "split": split, "media": "image", "captions": ["a", "b"]}
        for number, split in enumerate(splits)
    ]
    write_table(path, rows, SCHEMA)


def run_stage(project: Path) -> tuple[mlflow.MlflowClient, str, dict[str, str]]:
    """Run a stage of three steps; return client, run id and the content of the run file."""
    params = Params.load(ROOT / "params.yaml")
    sections = {"pretrain": params.pretrain, "model": params.model}
    out = project / "runs" / "pretrain.json"
    with start_run("pretrain", sections, out, manifest=project / "manifest.parquet") as run:
        run.log_curves(
            pd.DataFrame(
                {"step": [0, 1, 2], "loss/total": [3.0, 2.0, 1.5], "filter/keep_rate": [1.0, float("nan"), 0.5]}
            )
        )
        run.log_metrics({"i2t/R_at_1": 0.25})
        (project / "curves.csv").write_text("step,loss/total\n")
        run.log_artifact(project / "curves.csv")
    run_file = json.loads(out.read_text())
    return mlflow.MlflowClient(), run_file["run_id"], run_file


def test_a_stage_leaves_a_finished_run_with_its_curves_results_and_files(project: Path) -> None:
    client, run_id, run_file = run_stage(project)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "pretrain"
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "loss/total")] == [
        (0, 3.0),
        (1, 2.0),
        (2, 1.5),
    ]
    assert run.data.metrics["i2t/R_at_1"] == 0.25
    assert [file.path for file in client.list_artifacts(run_id)] == ["curves.csv"]
    assert run_file["experiment"] == "cots"


def test_parameters_are_logged_by_their_path_in_the_file(project: Path) -> None:
    client, run_id, _ = run_stage(project)
    logged = client.get_run(run_id).data.params
    params = Params.load(ROOT / "params.yaml")
    assert params.pretrain.objective.masked
    assert float(logged["pretrain.objective.mask.patch_ratio"]) == params.pretrain.objective.masked.patch_ratio
    assert int(logged["model.image.options.embed_dim"]) == params.model.image.options["embed_dim"]
    assert "index.factory" not in logged


def test_a_run_is_tagged_with_where_it_came_from(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=project, check=True)
    parent = mlflow.MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("COTS_PARENT_RUN", parent)
    client, run_id, _ = run_stage(project)
    tags = client.get_run(run_id).data.tags
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, check=True, capture_output=True, text=True)
    assert tags["git.commit"] == head.stdout.strip()
    assert tags["git.dirty"] == "false"
    assert tags["manifest.digest"] == file_digest(project / "manifest.parquet")
    assert tags["dvc.stage"] == "pretrain"
    assert tags["mlflow.parentRunId"] == parent
    mlflow.MlflowClient().delete_run(parent)
    client, run_id, _ = run_stage(project)
    assert "mlflow.parentRunId" not in client.get_run(run_id).data.tags


def test_the_parameter_digest_changes_with_a_value_and_only_then(project: Path) -> None:
    client, first, _ = run_stage(project)
    _, second, _ = run_stage(project)
    digests = {client.get_run(run).data.tags["params.digest"] for run in (first, second)}
    assert len(digests) == 1
    params = Params.load(ROOT / "params.yaml")
    changed = {"pretrain": params.pretrain.model_copy(update={"steps": 7}), "model": params.model}
    with start_run("pretrain", changed, project / "x.json", manifest=project / "manifest.parquet") as run:
        assert client.get_run(run.run_id).data.tags["params.digest"] not in digests


@pytest.mark.slow
def test_artefacts_lie_beside_the_database_wherever_the_process_stands(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = "artefacts.db"  # MLflow keeps one store an address: `mlflow.db`, opened by another test, would be that one's
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{name}")
    client, run_id, _ = run_stage(project)
    assert client.get_run(run_id).info.artifact_uri.startswith((project / "mlartifacts").as_uri())
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/{name}")
    run_stage(project)
    assert not list(elsewhere.iterdir())


def test_a_failed_stage_leaves_a_failed_run_and_no_run_file(project: Path) -> None:
    out = project / "runs" / "evaluate.json"
    with (
        pytest.raises(ZeroDivisionError),
        start_run("evaluate", {}, out, manifest=project / "manifest.parquet") as run,
    ):
        run_id = run.run_id
        1 / 0  # noqa: B018
    assert mlflow.MlflowClient().get_run(run_id).info.status == "FAILED"
    assert not out.exists()


def test_a_run_that_was_cut_off_goes_on_as_one_run_with_one_curve(project: Path) -> None:
    out, manifest = project / "cut.json", project / "manifest.parquet"
    section = TrainConfig(steps=5)
    rows = [{"step": step, "loss/total": 10.0 - step} for step in range(5)]

    def attempt(last: int, config: TrainConfig = section) -> str:
        with start_run("pretrain", {"pretrain": config}, out, manifest=manifest) as run:
            run.log_rows(rows[:last])
            if last < 5:
                raise KeyboardInterrupt
            run.log_curves(pd.DataFrame(rows))
        return run.run_id

    with pytest.raises(KeyboardInterrupt):
        attempt(3)
    run_id = attempt(5)
    client = connect()
    history = client.get_metric_history(run_id, "loss/total")
    assert [(metric.step, metric.value) for metric in history] == [(row["step"], row["loss/total"]) for row in rows]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert not out.with_suffix(".unfinished").exists()

    with pytest.raises(KeyboardInterrupt):
        attempt(2)
    assert attempt(5, TrainConfig(steps=6)) != run_id


def test_curves_can_be_looked_at_while_the_run_is_open(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_curves, "INTERVAL_SECONDS", 0.0)
    with start_run("pretrain", {}, project / "live.json", manifest=project / "manifest.parquet") as run:
        with LiveCurves(run) as live:
            live.add({"step": 0, "loss/total": 2.0, "val/rsum": math.nan})
        [seen] = connect().get_metric_history(run.run_id, "loss/total")
        assert (seen.step, seen.value) == (0, 2.0)
        assert connect().get_metric_history(run.run_id, "val/rsum") == []
        run.log_curves(pd.DataFrame([{"step": 0, "loss/total": 2.0}, {"step": 1, "loss/total": 1.0}]))
    assert [metric.step for metric in connect().get_metric_history(run.run_id, "loss/total")] == [0, 1]


def test_a_curve_longer_than_one_call_of_the_server_arrives_whole(project: Path) -> None:
    table = pd.DataFrame({"step": range(2500), "loss/total": range(2500)})
    with start_run("pretrain", {}, project / "x.json", manifest=project / "manifest.parquet") as run:
        run.log_curves(table)
    history = mlflow.MlflowClient().get_metric_history(run.run_id, "loss/total")
    assert [m.value for m in history] == list(range(2500))


def test_a_server_that_is_down_is_reported_within_seconds(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://someone:secret@127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    start = time.monotonic()
    with (
        pytest.raises(RunFailed, match="no MLflow server at http://127.0.0.1") as error,
        start_run("pretrain", {}, project / "x.json", manifest=project / "manifest.parquet"),
    ):
        pytest.fail("the work must not start")
    assert time.monotonic() - start < 5
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_something_that_is_no_http_server_is_reported_like_one_that_is_down(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        threading.Thread(target=greet, args=(server,), daemon=True).start()
        with (
            pytest.raises(RunFailed, match="no MLflow server"),
            start_run("pretrain", {}, project / "x.json", manifest=project / "manifest.parquet"),
        ):
            pytest.fail("the work must not start")


def greet(server: socket.socket) -> None:
    peer, _ = server.accept()
    with peer:
        peer.recv(1000)
        peer.sendall(b"220 mail.example ready\r\n")


def test_lists_and_texts_are_flattened_as_they_read_in_the_file() -> None:
    params = Params.load(ROOT / "params.yaml")
    flat = flatten_params(params)
    assert flat["tokenize.scale"] == f"[{params.tokenize.scale[0]}, {params.tokenize.scale[1]}]"
    assert flat["index.factory"] == params.index.factory
    assert flat["validate.sampled_shards"] == str(params.validate_.sampled_shards)


@pytest.mark.slow
def test_a_new_store_is_made_without_a_word(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from cots.tracking.runs import start_run\n"
        "with start_run('x', {}, Path('x.json'), manifest=Path('m')): pass"
    )
    write_manifest(tmp_path / "m")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == ""
