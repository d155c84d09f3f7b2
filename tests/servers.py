"""Helpers for processes that tests start: free ports, waiting, servers that are stopped at the end."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
UP_SECONDS = 240  # for a machine with other work


def free_port() -> int:
    """A free port on the loopback address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(command: Sequence[str], *, answers: str, folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Run a server in `folder`, with its output in `server.log`, once it answers at the URL `answers`."""
    log = folder / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdout=file, stderr=file, start_new_session=True
        )
    try:
        deadline = time.monotonic() + UP_SECONDS
        while not _up(answers):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def waited_for(condition: Callable[[], T], seconds: float = 200, *, every: float = 0.1) -> T:
    """Wait until the condition is true, asking every so many seconds; return its value.

    A question to Prefect's server takes 10 ms of a core.
    """
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(every)
    return result


def _up(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
