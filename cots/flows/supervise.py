"""Runs a command that ends with whoever started it, even by `kill -9`: `python -m cots.flows.supervise MODULE ...`.

The starter holds the other end of this process's standard input; when that closes, the command's group is stopped.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_SECONDS = 30  # between asking a command to stop and stopping it


def supervised(module: str, *arguments: str) -> int:
    """Run `python -m module arguments` in a group of its own; the exit code, as a shell tells it."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: None)  # the starter decides; a handler, since ignoring would be inherited
    command = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL, start_new_session=True
    )
    threading.Thread(target=_stop_when_left, args=(command,), daemon=True).start()
    code = command.wait()
    _signal(command, signal.SIGKILL)  # what it left behind
    return code if code >= 0 else 128 - code


def _stop_when_left(command: subprocess.Popen[bytes]) -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock a daemon thread must not hold when the interpreter ends
    _signal(command, signal.SIGTERM)
    try:
        command.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal(command, signal.SIGKILL)


def _signal(command: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(command.pid, number)


if __name__ == "__main__":
    sys.exit(supervised(*sys.argv[1:]))
