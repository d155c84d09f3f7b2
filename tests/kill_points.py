"""Kills a program at a step on the disk or in the registry: `python -m tests.kill_points WHERE MODULE ARGUMENT...`.

A step is a call that makes something on the disk final (a flush, a rename, a removal), or a commit of something that
was written to a database, such as MLflow's. The process dies by SIGKILL just before a step, so that nothing can clean
up. WHERE is the number of the step, from 1, or the name of a file, for the first step on it. If there is no such step
the program ends as usual. If WHERE is a path it also ends as usual, and before each step copies its working folder
there: what finished calls wrote is what a killed process leaves, so that one run gives the state after every kill.
"""

import hashlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

STEPS = ("fsync", "rename", "replace", "unlink", "rmdir")
WRITES = ("insert", "update", "delete")


def run_and_kill(where: str, module: str, arguments: Sequence[str]) -> None:
    """Run a module's main block, and kill this process just before a step, or copy its folder before each."""
    numbers, folder = count(1), Path.cwd()

    def before_step(name: str) -> None:
        if os.sep in where:
            _copy_if_changed(folder, Path(where))
        elif where in (str(next(numbers)), name):
            os.kill(os.getpid(), signal.SIGKILL)

    def announced(call: Callable[..., Any]) -> Callable[..., Any]:
        def step(target: Any, *args: object, **options: object) -> object:
            before_step((Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(target)).name)
            return call(target, *args, **options)

        return step

    for name in STEPS:
        setattr(os, name, announced(getattr(os, name)))
    _announce_commits(lambda: before_step("commit"))
    sys.argv = [module, *arguments]
    if not hasattr(sys.modules.get(module), "__path__"):  # runpy warns where a module is imported already
        sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _announce_commits(before_step: Callable[[], None]) -> None:
    """Call back before each commit of a transaction that has written something."""

    @event.listens_for(Engine, "before_cursor_execute")
    def note_write(connection: Any, cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().lower().startswith(WRITES):
            connection.info["has written"] = True

    @event.listens_for(Engine, "commit")
    def announce(connection: Any) -> None:
        if connection.info.pop("has written", False):
            before_step()


def _copy_if_changed(folder: Path, copies: Path) -> None:
    """Copy a folder into the next numbered one, if more than scratch has changed since the last copy."""
    files = [path for path in folder.rglob("*") if not path.is_relative_to(folder / "runs") and path.is_file()]
    state = repr(sorted((str(path), (found := path.stat()).st_size, found.st_mtime_ns) for path in files))
    last = copies / "state"
    if not last.exists() or state != last.read_text():
        last.write_text(state)
        shutil.copytree(folder, copies / f"{len(list(copies.iterdir())):03}")


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
