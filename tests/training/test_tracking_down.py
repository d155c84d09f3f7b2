"""Training outlives its tracking server: a server that dies costs no step that was made."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from cots.errors import RunFailed
from cots.progress import Progress
from cots.stages import pretrain
from cots.tracking import live_curves
from cots.training import checkpoint
from tests.servers import free_port, serving
from tests.training.conftest import tiny_params


@pytest.fixture
def address(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the server is, as soon as one is started; the working folder has its database."""
    shutil.copy(empty_store, tmp_path / "s.db")
    monkeypatch.chdir(tmp_path)
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield address
    mlflow.set_tracking_uri("")


@pytest.mark.slow
def test_a_server_that_dies_during_a_training_costs_no_step_and_has_one_run_in_the_end(
    address: str, tiny_data: Path, tokenized: Path, tmp_path: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--backend-store-uri", "sqlite:///s.db", "--artifacts-destination", "kept", "--workers", "1"]
    command = [fork_python, "-m", "mlflow", "server", "--port", address.rpartition(":")[2], *options]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    params, steps, servers = tiny_params(), list[float](), ExitStack()
    inputs = (tiny_data / "shards", tiny_data / "manifest.parquet", tokenized / "tokens", tokenized / "tokenizer")
    outputs = (tmp_path / "model", tmp_path / "report", tmp_path / "run.json")

    def stop_server_before_the_last_step(_: Progress, metrics: dict[str, float]) -> None:
        steps.append(metrics["step"])
        if metrics["step"] == params.pretrain.steps - 2:
            servers.close()

    monkeypatch.setattr(Progress, "log_step", stop_server_before_the_last_step)
    monkeypatch.setattr(live_curves, "INTERVAL_SECONDS", 0.0)
    server = {"answers": f"{address}/health", "folder": tmp_path, "environment": environment}
    servers.enter_context(serving(command, **server))  # type: ignore[arg-type]
    with pytest.raises(RunFailed, match="MLflow at http://127.0.0.1"):
        pretrain.stage(*inputs, *outputs, params=params)
    assert checkpoint.path_of("pretrain").is_file()

    with serving(command, **server):  # type: ignore[arg-type]
        pretrain.stage(*inputs, *outputs, params=params)
        [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss/total")
        assert sorted(metric.step for metric in history) == list(range(params.pretrain.steps))
        assert run.info.status == "FINISHED"
    assert steps == list(range(params.pretrain.steps))
    assert pd.read_csv(tmp_path / "report/curves.csv")["step"].tolist() == steps
    assert not checkpoint.path_of("pretrain").exists()
