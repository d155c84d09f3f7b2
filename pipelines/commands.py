"""The tools that a flow calls: DVC and `cots`, each in a process group of its own."""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger

from cots.errors import RunFailed

GRACE_SECONDS = 30  # between asking a command to stop and stopping it


def run(module: str, *arguments: str) -> None:
    """Run `python -m module arguments` to its end, its lines in the flow's log.

    Raises:
        RunFailed: it ended with another exit code than 0; tells its last line.
    """
    name = " ".join([module, *arguments])
    last = deque([""], maxlen=1)
    with _own_group(module, *arguments) as process:
        assert process.stdout
        for line in process.stdout:
            get_run_logger().info(line.rstrip())
            last.append(line.strip() or last[0])
        code = process.wait()
    if code:
        raise RunFailed(f"`{name}` ended with exit code {code}: {last[0]}")


@contextmanager
def _own_group(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The running command; when the flow ends, for whatever reason, nothing that it started goes on."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(GRACE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # the whole group is gone
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def has_remote() -> bool:
    """Whether DVC has a default remote to pull from and push to."""
    command = [sys.executable, "-m", "dvc", "config", "core.remote"]
    return bool(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip())  # noqa: S603
