"""Runs a command that ends with its parent, even if the parent gets `kill -9`: `python -m cots.supervise MODULE`.

The parent holds the write end of this process's standard input; when it closes, the command's process group is stopped.
If this process itself gets `kill -9`, the kernel of Linux kills the command.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_SECONDS = 30  # between SIGTERM and SIGKILL
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends


def run_supervised(module: str, *arguments: str) -> int:
    """Run `python -m module arguments` in its own process group; return the exit code in the shell's convention."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: None)  # the parent decides; SIG_IGN would be inherited by the command
    command = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # no other thread runs yet
    )
    threading.Thread(target=_stop_when_orphaned, args=(command,), daemon=True).start()
    code = command.wait()
    _signal(command, signal.SIGKILL)  # processes that the command left behind
    return code if code >= 0 else 128 - code


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop_when_orphaned(command: subprocess.Popen[bytes]) -> None:
    os.read(0, 1)  # not sys.stdin: a daemon thread must not hold its lock when the interpreter exits
    _signal(command, signal.SIGTERM)
    try:
        command.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal(command, signal.SIGKILL)


def _signal(command: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(command.pid, number)


if __name__ == "__main__":
    sys.exit(run_supervised(*sys.argv[1:]))
