"""Training outlives its tracking server: a server that dies costs no step that was made."""

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
from tests.training.conftest import MlflowServer, tiny_params


@pytest.mark.slow
def test_a_server_that_dies_during_a_training_costs_no_step_and_has_one_run_in_the_end(
    mlflow_server: MlflowServer, tiny_data: Path, tokenized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, steps, servers = tiny_params(), list[float](), ExitStack()
    inputs = (tiny_data / "shards", tiny_data / "manifest.parquet", tokenized / "tokens", tokenized / "tokenizer")
    outputs = (tmp_path / "model", tmp_path / "report", tmp_path / "run.json")

    def stop_server_before_the_last_step(_: Progress, metrics: dict[str, float]) -> None:
        steps.append(metrics["step"])
        if metrics["step"] == params.pretrain.steps - 2:
            servers.close()

    monkeypatch.setattr(Progress, "log_step", stop_server_before_the_last_step)
    monkeypatch.setattr(live_curves, "INTERVAL_SECONDS", 0.0)
    servers.enter_context(mlflow_server.running())
    with pytest.raises(RunFailed, match="MLflow at http://127.0.0.1"):
        pretrain.stage(*inputs, *outputs, params=params)
    assert checkpoint.path_of("pretrain").is_file()

    with mlflow_server.running():
        pretrain.stage(*inputs, *outputs, params=params)
        [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss/total")
        assert sorted(metric.step for metric in history) == list(range(params.pretrain.steps))
        assert run.info.status == "FINISHED"
    assert steps == list(range(params.pretrain.steps))
    assert pd.read_csv(tmp_path / "report/curves.csv")["step"].tolist() == steps
    assert not checkpoint.path_of("pretrain").exists()
