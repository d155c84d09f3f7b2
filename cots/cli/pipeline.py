"""Runs stages from a command: DVC in a child process, with its output passed through."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from cots.errors import RunFailed

VERSION = Path("cots-version.txt")  # written by stage `version` of a project that has no code of this package
ADVICE = (  # of DVC, on what comes after `dvc repro`; a command that runs a stage says itself what comes next
    "To track the changes with git, run:",
    "git add ",
    "To enable auto staging, run:",
    "dvc config core.autostage ",
    "Use `dvc push` to send your updates",
)


def reproduce(stage: str) -> None:
    """Run one stage if it is stale, without the stages that it depends on but for that of the version.

    What DVC and the stage print goes to standard error, because standard output is for the command's own result.

    Raises:
        ModuleNotFoundError: DVC is not installed.
        RunFailed: the stage failed; its own output says why.
    """
    if find_spec("dvc") is None:
        raise ModuleNotFoundError(name="dvc")
    version = ["version"] if VERSION.is_file() else []
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *version, stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="backslashreplace") as dvc:  # noqa: S603
        assert dvc.stdout
        for line in dvc.stdout:
            if line.strip() and not line.strip().startswith(ADVICE):
                print(line, end="", file=sys.stderr, flush=True)
    if dvc.returncode:
        raise RunFailed(f"`dvc repro --single-item {stage}` ended with exit code {dvc.returncode}")
