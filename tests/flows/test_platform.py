"""The platform of `make up`: schedules, runs, queues, and recovery after a process is killed."""

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import mlflow
import psutil
import pytest

from tests.flows.conftest import PACKAGE, ROOT, Platform, alive
from tests.servers import waited_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # seconds, for a machine with other work

# A stage that records its start and waits for permission to continue.
HELD = f"""
stages:
  train:
    cmd: echo $$ > begun && until [ -f go ]; do sleep 0.1; done && cp data.txt figures.txt
    deps: [data.txt]
    outs: [figures.txt]
{PACKAGE}"""


@pytest.fixture
def registry(platform: Platform) -> mlflow.MlflowClient:
    """The client of the platform's MLflow server."""
    return mlflow.MlflowClient(f"http://127.0.0.1:{platform.ports[1]}")


def champion(registry: mlflow.MlflowClient) -> int:
    return int(registry.get_model_version_by_alias("cots-index", "champion").version)


def prepare_held_run(platform: Platform, tiny_package: Path, data: str) -> None:
    for file in ("begun", "go"):
        (platform.project / file).unlink(missing_ok=True)
    (platform.project / "dvc.yaml").write_text(HELD.format(package=tiny_package))
    (platform.project / "data.txt").write_text(data)


def begun_stage(platform: Platform) -> int:
    file = platform.project / "begun"
    waited_for(lambda: file.is_file() and file.read_text().strip() != "", 300)
    return int(file.read_text())


def test_the_deployments_of_the_project_are_accepted_and_scheduled(platform: Platform) -> None:
    deployments = {deployment["name"]: deployment for deployment in platform.ask("/deployments/filter", {})}
    assert sorted(deployments) == ["daily", "hourly", "nightly", "promote", "rollback"]
    intervals = {
        name: [schedule["schedule"]["interval"] for schedule in deployments[name]["schedules"]] for name in deployments
    }
    assert intervals == {"daily": [86400.0], "nightly": [86400.0], "hourly": [3600.0], "promote": [], "rollback": []}
    assert {name: deployment["work_queue_name"] for name, deployment in deployments.items()} == {
        "daily": "folder",
        "nightly": "folder",
        "hourly": "folder",
        "promote": "default",
        "rollback": "default",
    }
    assert platform.ask("/work_pools/cots/queues/folder")["concurrency_limit"] == 1
    assert all(
        deployment["parameters"]["hours"] > 0
        for name, deployment in deployments.items()
        if name in ("nightly", "hourly")
    )


def test_the_passwords_are_on_no_command_line_and_no_one_else_may_read_them(platform: Platform) -> None:
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert any("mlflow server" in line for line in lines)
    for name in ("pgpass", "prefect-login"):
        file = platform.state / name
        password = file.read_text().strip().split(":")[-1]
        assert len(password) >= 32
        assert file.stat().st_mode & 0o077 == 0
        assert not any(password in line for line in lines)


def test_a_page_of_another_site_can_command_neither_prefect_nor_mlflow(platform: Platform) -> None:
    page = {"Origin": "https://evil.example", "Content-Type": "application/json"}
    mlflow_url = f"http://127.0.0.1:{platform.ports[1]}/api/2.0/mlflow/experiments/create"
    for url, body in ((f"{platform.url}/flows/", {"name": "retrain"}), (mlflow_url, {"name": "theirs"})):
        preflight = page | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        allowed = httpx.options(url, headers=preflight).headers.get("Access-Control-Allow-Origin")
        assert allowed not in ("*", page["Origin"])
        for content_type in ("application/json", "text/plain"):  # the latter needs no preflight
            refused = httpx.post(url, content=json.dumps(body), headers=page | {"Content-Type": content_type})
            assert refused.status_code in (401, 403), refused.text
    own = {"Origin": platform.url.removesuffix("/api"), "Access-Control-Request-Method": "POST"}
    assert httpx.options(f"{platform.url}/flows/", headers=own).headers["Access-Control-Allow-Origin"] == own["Origin"]


def test_a_port_that_is_taken_is_reported_in_one_line(platform: Platform, tmp_path: Path) -> None:
    port = platform.ports[-1]
    done = platform.local("up", "--state", str(tmp_path / "other"), "--postgres-port", port)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: port {port} for postgres cannot be used (Address already in use): "
        "stop the program that uses it, or choose another with --postgres-port"
    ]


def test_a_schedule_fires_and_the_champion_moves(
    platform: Platform, registry: mlflow.MlflowClient, tmp_path: Path
) -> None:
    first = datetime.now(UTC) + timedelta(seconds=20)
    often = (ROOT / "prefect.yaml").read_text()
    often = often.replace("interval: 86400 ", "interval: 600 ").replace("2026-01-01T02:00:00+00:00", first.isoformat())
    (platform.project / "prefect.yaml").write_text(often)
    platform.up()
    waited_for(lambda: any(run["state_type"] == "COMPLETED" for run in platform.runs("retrain")), 400, every=0.5)
    [run] = [run for run in platform.runs("retrain") if run["state_type"] == "COMPLETED"]
    assert run["auto_scheduled"]
    assert champion(registry) == 1
    (platform.project / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text())  # for the next test's `up`


def test_a_second_up_finds_everything_running_and_status_agrees(platform: Platform) -> None:
    output = platform.up()
    for name in ("PostgreSQL", "mlflow", "prefect", "worker"):
        assert f"{name}: already running" in output
    status = platform.local("status")
    assert (status.returncode, status.stdout.count(": up")) == (0, 4)


@pytest.mark.parametrize("victim", ["worker", "prefect", "mlflow", "postgres"])
def test_what_is_killed_in_the_middle_of_a_run_leaves_a_state_from_which_the_same_command_finishes(
    platform: Platform, registry: mlflow.MlflowClient, tiny_package: Path, victim: str
) -> None:
    prepare_held_run(platform, tiny_package, f"after {victim} died")
    platform.begin("retrain", "nightly")
    begun_stage(platform)
    os.kill(platform.pid(victim), signal.SIGKILL)
    (platform.project / "go").touch()
    output = platform.up()
    assert f"{'PostgreSQL' if victim == 'postgres' else victim}: started" in output

    again = platform.begin("retrain", "nightly")
    platform.completed(again)
    newest, *_ = registry.search_model_versions("name = 'cots-index'", order_by=["version_number DESC"])
    assert newest.run_id
    content = Path(registry.download_artifacts(newest.run_id, "cots-index/figures.txt")).read_text()
    assert content == f"after {victim} died"
    assert champion(registry) == int(newest.version)
    for version in registry.search_model_versions("name = 'cots-index'"):
        assert {"gate.promote", "gate.reasons", "content.digest", "encoders.version"} <= set(version.tags)
    experiments = [experiment.experiment_id for experiment in registry.search_experiments()]
    assert registry.search_runs(experiments, "attributes.status = 'RUNNING'") == []


def test_a_second_run_waits_in_the_queue_and_a_cancelled_one_leaves_no_stage_behind(
    platform: Platform, tiny_package: Path
) -> None:
    prepare_held_run(platform, tiny_package, "cancelled")
    first = platform.begin("retrain", "nightly")
    stage = begun_stage(platform)
    second = platform.begin("retrain", "nightly")
    assert platform.state_of(second)["type"] == "SCHEDULED"
    cancelling = {"state": {"type": "CANCELLING"}}
    platform.ask(f"/flow_runs/{first}/set_state", cancelling)
    assert platform.ended(first)[0] == "CANCELLED"
    waited_for(lambda: not alive(stage))
    (platform.project / "go").touch()
    platform.completed(second)


def test_promotion_and_rollback_move_the_champion_and_are_remembered(
    platform: Platform, registry: mlflow.MlflowClient
) -> None:
    before = champion(registry)
    platform.completed(platform.begin("promote", "promote", version=1, reason="it was fine"))
    assert champion(registry) == 1
    back = platform.completed(platform.begin("rollback", "rollback", reason="it was not"))
    assert back == f"cots-index version {before} is the champion"
    assert champion(registry) == before
    promotions = registry.search_model_versions("name = 'cots-promotions'", order_by=["version_number DESC"])
    assert [promotion.tags["why"] for promotion in promotions[:2]] == ["it was not", "it was fine"]


def test_down_stops_what_up_started_and_leaves_the_data(platform: Platform) -> None:
    pids = [platform.pid(name) for name in ("worker", "prefect", "mlflow", "postgres")]
    done = platform.local("down")
    assert (done.returncode, done.stdout.count(": stopped")) == (0, 4), done.stderr
    assert not any(map(alive, pids))
    assert (platform.state / "postgres/data/PG_VERSION").is_file()
    assert platform.local("down").stdout.count(": was not running") == 4
    assert platform.local("status").returncode == 1
