"""Allows one run at a time in a project folder: runs share DVC's outputs, the package and the working files."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import psutil

from cots.errors import RunFailed

UNKNOWN = {"run": "?", "pid": 1, "since": "now"}  # while the holder is still writing
LOCK = Path(".dvc/tmp/flow.lock")  # DVC's folder for temporary files
HOLDER = "COTS_EXCLUSIVE_RUN"  # variable: process that holds the lock, for the commands that it starts


@contextmanager
def exclusive_run(name: str) -> Iterator[None]:
    """Lock the folder until the run and every process it started have ended; a command of that run needs no lock.

    Raises:
        RunFailed: another run holds the lock; the message names it.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+", encoding="utf8") as file:
        if _belongs_to_holder(file):
            yield
            return
        _acquire(file)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        file.truncate(0)
        json.dump({"run": name, "pid": os.getpid(), "since": now}, file)
        file.flush()
        os.set_inheritable(file.fileno(), True)
        os.environ[HOLDER] = str(os.getpid())
        try:
            yield
        finally:
            os.environ.pop(HOLDER, None)


def _belongs_to_holder(file: TextIO) -> bool:
    """Whether the run that holds the lock has started this process."""
    return os.environ.get(HOLDER) == str(_read_holder(file)["pid"])


def _read_holder(file: TextIO) -> dict[str, Any]:
    file.seek(0)
    try:
        holder: dict[str, Any] = json.loads(file.read())
    except ValueError:
        return UNKNOWN
    return holder


def _acquire(file: TextIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _read_holder(file)
        if psutil.pid_exists(holder["pid"]):
            raise RunFailed(
                f"{Path.cwd()} is in use by run {holder['run']} (process {holder['pid']}, since {holder['since']}): "
                "wait for that run or cancel it"
            ) from None
        fcntl.flock(file, fcntl.LOCK_EX)  # the holder was killed; its supervisor is still stopping the command
