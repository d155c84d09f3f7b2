"""One MLflow run a pipeline, with all parameters, the headline metrics, its data and the runs of its stages."""

import json
import shutil
import threading
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.entities import DatasetInput, Run

from cots.config.training import TrainConfig
from cots.digests import file_digest
from cots.flatten import flatten
from cots.tracking.runs import start_run
from cots.tracking.store import connect, get_or_create_experiment
from tests.servers import waited_for
from tests.tracking.test_runs import write_manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COTS_PARENT_RUN", raising=False)
    write_manifest(tmp_path / "manifest.parquet")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def run_stage(project: Path, stage: str, error: Exception | None = None) -> str:
    """Run a stage; return the id of its run."""
    out, manifest = project / "runs" / f"{stage}.json", project / "manifest.parquet"
    with start_run(stage, {"pretrain": TrainConfig(steps=5)}, out, manifest=manifest) as run:
        if stage == "evaluate":
            run.log_metrics({"image-text.i2t.R5": 3.0})
            run.log_headline({"image-text.RSUM": 12.5})
        if error:
            raise error
    return run.run_id


def data_sets(run: Run) -> list[DatasetInput]:
    assert run.inputs
    return list(run.inputs.dataset_inputs)


def parents() -> list[Run]:
    """The runs that are nested under no other, oldest first."""
    client = connect()
    runs = client.search_runs([get_or_create_experiment(client)], order_by=["attributes.start_time"])
    return [run for run in runs if "mlflow.parentRunId" not in run.data.tags]


def test_the_stages_of_a_pipeline_are_nested_under_one_run_with_all_parameters_and_the_headline(project: Path) -> None:
    stages = [run_stage(project, stage) for stage in ("pretrain", "finetune@image-text", "evaluate")]
    [parent] = parents()
    nested = [mlflow.MlflowClient().get_run(stage).data.tags["mlflow.parentRunId"] for stage in stages]
    assert nested == [parent.info.run_id] * 3
    assert (parent.info.run_name, parent.info.status) == ("pipeline", "FINISHED")
    assert parent.data.metrics == {"image-text.RSUM": 12.5}
    written = flatten(yaml.safe_load((project / "params.yaml").read_text()))
    assert set(parent.data.params) == set(written)
    assert parent.data.params["pretrain.steps"] == str(written["pretrain.steps"])
    assert parent.data.params["tokenize.scale"] == json.dumps(written["tokenize.scale"])


def test_a_pipeline_that_failed_goes_on_as_the_same_run(project: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_stage(project, "pretrain", ZeroDivisionError())
    [failed] = parents()
    assert failed.info.status == "FAILED"
    run_stage(project, "pretrain")
    [parent] = parents()
    assert (parent.info.run_id, parent.info.status) == (failed.info.run_id, "FINISHED")


def test_another_parameter_or_other_data_are_another_pipeline(project: Path) -> None:
    run_stage(project, "evaluate")
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("bootstrap_resamples: 1000 ", "bootstrap_resamples: 500 "))
    run_stage(project, "evaluate")
    write_manifest(project / "manifest.parquet", train=3)
    run_stage(project, "evaluate")
    first, second, third = parents()
    differing = {name for name in first.data.params if first.data.params[name] != second.data.params[name]}
    assert differing == {"evaluate.bootstrap_resamples", "gate.bootstrap_resamples"}
    assert second.data.params == third.data.params


def test_the_data_are_inputs_of_the_pipeline_and_of_each_stage(project: Path) -> None:
    stages = {
        context: run_stage(project, stage) for stage, context in (("pretrain", "training"), ("evaluate", "evaluation"))
    }
    client = mlflow.MlflowClient()
    for context, run in stages.items():
        [data] = data_sets(client.get_run(run))
        assert {tag.key: tag.value for tag in data.tags} == {"mlflow.data.context": context}
        assert file_digest(project / "manifest.parquet").startswith(data.dataset.digest)
        assert json.loads(data.dataset.profile or "") == {
            "train image": 2,
            "test image": 1,
            "samples": 3,
            "captions": 6,
        }
    [parent] = parents()
    [data] = data_sets(parent)
    assert data.dataset.name == str(project / "manifest.parquet")


def test_the_load_of_the_machine_is_logged_while_a_stage_works_unless_it_is_switched_off(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    client, manifest = connect(), project / "manifest.parquet"

    def metrics(run: str) -> dict[str, float]:
        values: dict[str, float] = client.get_run(run).data.metrics
        return values

    with start_run("pretrain", {}, project / "a.json", manifest=manifest) as run:
        waited_for(lambda: "system/cpu_utilization_percentage" in metrics(run.run_id), seconds=60)
    assert 0 < metrics(run.run_id)["system/system_memory_usage_percentage"] <= 100
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    with start_run("pretrain", {}, project / "b.json", manifest=manifest) as run:
        assert not [thread for thread in threading.enumerate() if thread.name == "SystemMetricsMonitor"]
