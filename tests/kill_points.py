"""Kills a stage at a step on the disk: `python -m tests.kill_points WHERE cots.stages.STAGE ARGUMENT...`.

A step is a call that makes something on the disk final: a flush, a rename, a removal. The process dies by SIGKILL just
before a step, so that nothing can clean up. WHERE is the number of the step, from 1, or the name of a file, for the
first step on it. If there is no such step the stage ends as usual.
"""

import hashlib
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

STEPS = ("fsync", "rename", "replace", "unlink", "rmdir")


def run_and_kill(where: str, module: str, arguments: Sequence[str]) -> None:
    """Run a module's main block, and kill this process just before a step."""
    numbers = count(1)

    def killing(call: Callable[..., Any]) -> Callable[..., Any]:
        def step(target: Any, *args: object, **options: object) -> object:
            path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(target)
            if where in (str(next(numbers)), path.name):
                os.kill(os.getpid(), signal.SIGKILL)
            return call(target, *args, **options)

        return step

    for name in STEPS:
        setattr(os, name, killing(getattr(os, name)))
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def killed_everywhere(python: str, folders: Callable[[], Path], *command: str) -> Iterator[Path]:
    """For each step of a stage: a folder in which the stage was killed there, and then run again to its end.

    Args:
        python: the interpreter, such as the fixture `fork_python`.
        folders: makes the working folder of a stage that has not run.
        command: the stage's module and its arguments.
    """
    for number in count(1):
        folder = folders()
        first = run(python, folder, str(number), *command)
        assert first.returncode in (0, -signal.SIGKILL), first.stderr
        if first.returncode == 0:
            assert number > 1
            return
        again = run(python, folder, "0", *command)
        assert again.returncode == 0, f"killed at step {number}: {again.stderr}"
        yield folder


def run(python: str, folder: Path, where: str, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a stage in a folder, and kill it there."""
    arguments = [python, "-m", "tests.kill_points", where, *command]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, str]:
    """Digest of each file in a folder, by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    run_and_kill(sys.argv[1], sys.argv[2], sys.argv[3:])
