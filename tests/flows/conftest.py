"""A project with toy stages, a Prefect server for single flows, and the whole platform."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cots.flows.local.postgres import is_installed
from tests.conftest import made_once
from tests.servers import free_port, serving, waited_for

ROOT = Path(__file__).parents[2]
UP_SECONDS = 240
RUN_SECONDS = 300

PACKAGE = """
  package:
    cmd: cp -r {package} package && cp figures.txt package/index/figures.txt
    deps: [figures.txt]
    outs: [package]
"""
PIPELINE = f"""
stages:
  evaluate:
    cmd: cp data.txt figures.txt && echo once >> evaluated
    deps: [data.txt]
    outs: [figures.txt]
{PACKAGE}"""


@dataclass(frozen=True)
class Server:
    """A running Prefect server.

    Attributes:
        url: of its API.
        environment: for processes that use it.
        python: interpreter that runs them.
    """

    url: str
    environment: dict[str, str]
    python: str

    def ask(self, path: str, body: object = None) -> Any:
        """Send a POST request to the API, or GET without a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", data, {"Content-Type": "application/json", **self.authorization()}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def authorization(self) -> dict[str, str]:
        """Headers that this server wants."""
        return {}

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a flow, newest first."""
        runs: list[dict[str, Any]] = self.ask(
            "/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
        )
        return runs

    def events(self, name: str, *, since: datetime) -> list[str]:
        """The messages of the events of this name, newest first; the server is shared, so of those since a time."""
        events = {"event": {"name": [name]}, "occurred": {"since": since.isoformat()}, "order": "DESC"}
        return [event["payload"]["message"] for event in self.ask("/events/filter", {"filter": events})["events"]]

    def page(self, run: str) -> str:
        """The Markdown artifact of a run."""
        condition = {"flow_run_id": {"any_": [run]}, "type": {"any_": ["markdown"]}}
        [artifact] = self.ask("/artifacts/filter", {"artifacts": condition})
        return str(artifact["data"])


@dataclass(frozen=True)
class Platform(Server):
    """The servers that `make up` starts, for a project of toy stages.

    Attributes:
        project: the folder whose deployments the worker runs.
        state: the servers' folder.
        ports: arguments of `up`.
    """

    project: Path
    state: Path
    ports: tuple[str, ...]

    def authorization(self) -> dict[str, str]:
        """The log-in that `up` made."""
        login = base64.b64encode((self.state / "prefect-login").read_bytes()).decode()
        return {"Authorization": f"Basic {login}"}

    def local(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m cots.flows.local VERB` in the project."""
        command = [self.python, "-m", "cots.flows.local", verb, "--state", str(self.state), *arguments]
        return subprocess.run(
            command, cwd=self.project, env=self.environment, capture_output=True, text=True, check=False, timeout=600
        )

    def up(self) -> str:
        """Start the services that are down; return the output."""
        done = self.local("up", *self.ports)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pid(self, name: str) -> int:
        """The pid of a process that `up` started."""
        if name == "postgres":
            return int((self.state / "postgres/data/postmaster.pid").read_text().split()[0])
        return int(json.loads((self.state / f"{name}.json").read_text())["pid"])

    def begin(self, flow: str, deployment: str, **parameters: object) -> str:
        """Start a run of a deployment; return its id."""
        found_deployment = self.ask(f"/deployments/name/{flow}/{deployment}")
        run = self.ask(f"/deployments/{found_deployment['id']}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def state_of(self, run: str) -> dict[str, Any]:
        """A run's state."""
        state: dict[str, Any] = self.ask(f"/flow_runs/{run}")["state"]
        return state

    def ended(self, run: str) -> tuple[str, str]:
        """Wait for the end of a run; return type and message of its state."""
        ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        waited_for(lambda: self.state_of(run)["type"] in ends, RUN_SECONDS, every=0.5)
        state = self.state_of(run)
        return state["type"], state["message"]

    def completed(self, run: str) -> str:
        """Wait for a run to complete; return its message."""
        state, message = self.ended(run)
        assert state == "COMPLETED", message
        return message


@pytest.fixture(scope="session")
def toy_project(
    tiny_package: Path, fork_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Path]:
    """Creates a DVC repository with two toy stages whose package can be published."""
    model = tmp_path_factory.mktemp("toy") / "project"
    model.mkdir()
    (model / "data.txt").write_text("one")
    (model / "dvc.yaml").write_text(PIPELINE.format(package=tiny_package))
    shutil.copy(ROOT / "params.yaml", model)
    subprocess.run(["git", "init", "-q"], cwd=model, check=True)
    dvc(fork_python, model, "init", "-q")
    dvc(fork_python, model, "config", "core.analytics", "false")
    return lambda folder: Path(shutil.copytree(model, folder))


@pytest.fixture
def project(tmp_path: Path, toy_project: Callable[[Path], Path]) -> Path:
    """Such a repository for one test."""
    return toy_project(tmp_path / "project")


def dvc(python: str, folder: Path, *arguments: str) -> None:
    """Run DVC in a folder."""
    subprocess.run([python, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


def alive(process: int) -> bool:
    """Whether the process is running."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()


def free_ports(number: int) -> list[int]:
    """Free ports on the loopback address."""
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="session")
def prefect_home(session_folder: Path, fork_python: str) -> Path:
    """Prefect's home folder with a migrated database; created once, because that takes ten seconds."""

    def migrate(home: Path) -> None:
        command = [fork_python, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, env=os.environ | {"PREFECT_HOME": str(home)}, check=True, capture_output=True)

    return made_once(session_folder / "prefect", migrate)


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path, fork_python: str) -> Iterator[Server]:
    """A Prefect server on a free port, with its own home folder."""
    home = Path(shutil.copytree(prefect_home, tmp_path_factory.mktemp("prefect") / "home"))
    port = free_port()
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_PROMPT": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    prefect = Server(environment["PREFECT_API_URL"], environment, fork_python)
    command = [fork_python, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with serving(command, answers=f"{prefect.url}/health", folder=home, environment=environment):
        yield prefect


@pytest.fixture(scope="session")
def platform(toy_project: Callable[[Path], Path], fork_python: str) -> Iterator[Platform]:
    """The running platform on free ports, in a folder that PostgreSQL's user can access.

    Its first start uses the real interpreter, as the worker then does for its runs; later starts fork.
    """
    if not is_installed():
        pytest.skip("PostgreSQL is not installed: apt install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="cots-platform-"))
    folder.chmod(0o755)
    project = toy_project(folder / "project")
    shutil.copy(ROOT / "prefect.yaml", project)
    shutil.copytree(ROOT / "pipelines", project / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    mlflow, prefect, postgres = map(str, free_ports(3))
    ports = ("--mlflow-port", mlflow, "--prefect-port", prefect, "--postgres-port", postgres)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment = outside | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PREFECT_WORKER_QUERY_SECONDS": "1",  # how often the worker looks for runs: by default every 10 seconds,
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",  # and the scheduler for schedules: 60
    }
    first = Platform(f"http://127.0.0.1:{prefect}/api", environment, sys.executable, project, folder / "state", ports)
    later = replace(first, python=fork_python)
    try:
        first.up()
        yield later
    finally:
        later.local("down", "--purge")
        shutil.rmtree(folder)
