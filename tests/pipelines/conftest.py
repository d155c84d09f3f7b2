"""A Prefect server of these tests alone, on a free port, with a home of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

UP_SECONDS = 240


@dataclass(frozen=True)
class Server:
    """A running Prefect server.

    Attributes:
        url: of its API.
        environment: for processes that are to use it.
    """

    url: str
    environment: dict[str, str]

    def ask(self, path: str, body: object = None) -> Any:
        """Post to the API, or get where there is no body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a flow, the newest first."""
        found: list[dict[str, Any]] = self.ask(
            "/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
        )
        return found


def started(*command: str, cwd: Path, environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A process in a group of its own, which SIGINT reaches whoever started the tests."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=cwd, env=environment, stdout=file, stderr=file, start_new_session=True
        )


def stopped(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, then see to it."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server, up."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_PROMPT": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    found = Server(environment["PREFECT_API_URL"], environment)
    log = home / "server.log"
    command = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    process = started(*command, cwd=home, environment=environment, log=log)
    try:
        deadline = time.monotonic() + UP_SECONDS
        while not _healthy(found):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        yield found
    finally:
        stopped(process)


def _healthy(server: Server) -> bool:
    try:
        return bool(server.ask("/health"))
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
