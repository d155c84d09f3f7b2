"""Allows one run at a time in a project folder, because DVC fails at once if another process holds its outputs."""

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

EMPTY = '{"run": "?", "pid": 1, "since": "now"}'  # stands in while the holder is still writing
LOCK = Path(".dvc/tmp/flow.lock")  # DVC's folder for temporary files


@contextmanager
def exclusive_run(name: str) -> Iterator[None]:
    """Lock the folder until the run and every process it started have ended.

    Raises:
        RunFailed: another run holds the lock; the message names it.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+", encoding="utf8") as file:
        _acquire(file)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        file.truncate(0)
        json.dump({"run": name, "pid": os.getpid(), "since": now}, file)
        file.flush()
        os.set_inheritable(file.fileno(), True)
        yield


def _acquire(file: TextIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = json.loads(file.read() or EMPTY)
        if psutil.pid_exists(holder["pid"]):
            raise RunFailed(
                f"{Path.cwd()} is in use by run {holder['run']} (process {holder['pid']}, since {holder['since']}): "
                "wait for that run or cancel it"
            ) from None
        fcntl.flock(file, fcntl.LOCK_EX)  # the holder was killed; its supervisor is still stopping the command
