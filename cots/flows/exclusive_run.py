"""One run at a time in the project's folder: DVC fails at once where another holds its outputs."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import psutil

from cots.errors import RunFailed

EMPTY = '{"run": "?", "pid": 1, "since": "now"}'  # read while the holder was writing
LOCK = Path(".dvc/tmp/flow.lock")  # DVC's own room for what no one keeps


@contextmanager
def exclusive_run(name: str) -> Iterator[None]:
    """Hold the folder as long as the run and whatever it started live.

    Raises:
        RunFailed: another run holds it; tells which.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+", encoding="utf8") as file:
        _hold(file)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        file.truncate(0)
        json.dump({"run": name, "pid": os.getpid(), "since": now}, file)
        file.flush()
        os.set_inheritable(file.fileno(), True)
        yield


def _hold(file: TextIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = json.loads(file.read() or EMPTY)
        if psutil.pid_exists(holder["pid"]):
            raise RunFailed(
                f"{Path.cwd()} is in use by run {holder['run']} (process {holder['pid']}, since {holder['since']}): "
                "wait for it or cancel it"
            ) from None
        fcntl.flock(file, fcntl.LOCK_EX)  # that run was killed, and its leash is stopping what it started
