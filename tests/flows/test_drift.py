"""The flow `check_drift` with a real registry and a real Prefect server."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cots.flows.alerts import DRIFTED
from cots.flows.drift import to_markdown
from cots.models.dual_encoder import DualEncoder
from tests.deployed import FOREIGN, deploy, write_log
from tests.flows.conftest import Server
from tests.servers import waited_for


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_drift_retraining_is_asked_for_once_and_the_table_is_left_as_an_artifact(
    tmp_path: Path, store: str, server: Server, tiny_data: Path, tiny_package: Path, tiny_model: Path
) -> None:
    project = tmp_path / "project"
    deploy(project, data=tiny_data, model=tiny_model, source=tiny_package.parent)
    write_log(project / "queries/1.jsonl", DualEncoder.load(tiny_model), FOREIGN)
    flow = server.ask("/flows/", {"name": "retrain"})["id"]
    nightly = server.ask("/deployments/", {"name": "nightly", "flow_id": flow})["id"]
    start, before = datetime.now(UTC), len(server.runs("retrain"))
    run_flow(project, server, store, "queries='queries', retrain=True")
    [started] = server.runs("retrain")[: len(server.runs("retrain")) - before]
    assert started["deployment_id"] == nightly
    [artifact, *_] = server.ask(
        "/artifacts/filter", {"artifacts": {"key": {"any_": ["drift"]}}, "sort": "CREATED_DESC"}
    )
    assert "Drifted: **yes**" in artifact["data"]
    assert "| queries, texts | words are known | **no** |" in artifact["data"]
    waited_for(
        lambda: any("queries, texts: words are known" in text for text in server.events(DRIFTED, since=start)), 30
    )
    run_flow(project, server, store, "queries='queries'")
    shutil.rmtree(project / "queries")
    run_flow(project, server, store, "retrain=True")
    assert len(server.runs("retrain")) == before + 1
    assert [run["state_type"] for run in server.runs("check-drift")[:3]] == ["COMPLETED"] * 3


def run_flow(project: Path, server: Server, store: str, parameters: str) -> None:
    command = [server.python, "-c", f"from cots.flows.drift import check_drift; check_drift({parameters})"]
    environment = server.environment | {"MLFLOW_TRACKING_URI": store}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_artifact_tells_what_was_not_judged() -> None:
    markdown = to_markdown(
        {"drifted": False, "checks": [], "not judged": {"queries, texts": "only 3 rows, 100 are needed"}}
    )
    assert markdown.startswith("Drifted: **no**")
    assert "- queries, texts: not judged, only 3 rows, 100 are needed" in markdown
