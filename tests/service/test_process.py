"""`cots serve` as a process: its log lines, its errors, its shutdown."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from cots.cli import main
from tests.servers import waited_for

from .conftest import Champion

pytestmark = pytest.mark.slow
Refused = Callable[..., tuple[int, str]]
BODY = b'{"text": "a red square"}'


@contextmanager
def started(
    *arguments: object, before: Sequence[str] = (), **environment: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the service; yield the process and its port once it listens."""
    command = [*before, sys.executable, "-m", "cots", "serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    assert process.stderr
    try:
        line = process.stderr.readline()
        address = re.search(r"INFO http://127\.0\.0\.1:(\d+) searches ", line)
        assert address, line
        yield process, int(address[1])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run `cots serve` with arguments that it refuses; return exit code and standard error."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cots", "serve", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def test_the_champion_is_served_and_sigterm_finishes_the_requests_in_flight(
    champion: Champion, tiny_package: Path
) -> None:
    champion.move(champion.register(tiny_package / "index"))
    with started() as (process, port):
        assert process.stderr
        assert "INFO cots-index version 1 answers" in process.stderr.readline()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
            head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
            slow.sendall(b"POST /search HTTP/1.1\r\n" + head.encode() + BODY[:5])
            probe = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            probe.request("GET", "/healthz")  # answered after the half query was read
            assert probe.getresponse().read() == b'{"alive":true}'
            probe.close()
            process.send_signal(signal.SIGTERM)
            slow.sendall(BODY[5:])
            answer = http.client.HTTPResponse(slow)
            answer.begin()
            assert json.loads(answer.read())["results"]
            assert answer.status == 200
        assert process.wait(20) == 0


def is_alive(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20).status_code == 200
    except httpx.TransportError:
        return False


def test_more_silent_connections_than_the_process_has_files_leave_log_and_service_usable(mixed_package: Path) -> None:
    few_files = ("bash", "-c", 'ulimit -n 256; exec "$@"', "bash")
    with started("--model", mixed_package, before=few_files) as (process, port), ExitStack() as silent:
        assert process.stderr
        assert "answers" in process.stderr.readline()
        for _ in range(400):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        silent.close()
        waited_for(lambda: is_alive(port), 20)
        process.terminate()
        assert process.stderr.read() == ""


def test_an_address_that_is_taken_is_reported_in_one_line(refused: Refused, mixed_package: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, error = refused("--model", mixed_package, "--port", port)
    assert code == 2
    assert error == f"error: cannot listen at 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--host", "0.0.0.0"], {}, "error: 0.0.0.0 accepts remote connections: set COTS_TOKEN"),
        ([], {"COTS_TOKEN": "short"}, "error: COTS_TOKEN has 5 characters: give at least 16"),
        (["--model", "/nowhere"], {}, "error: no model /nowhere"),
        (["--model", "/"], {}, "error: / is not a packaged index"),
    ],
)
def test_what_cannot_be_served_is_reported_in_one_line(
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: dict[str, str],
    sentence: str,
) -> None:
    monkeypatch.delenv("COTS_TOKEN", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, error = refused(*arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith(sentence)
