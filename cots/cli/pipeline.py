"""Runs stages from a command: DVC in a child process, with its output passed through."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from cots.errors import RunFailed

VERSION = Path("cots-version.txt")  # written by stage `version` of a project that has no code of this package


def reproduce(stage: str) -> None:
    """Run one stage if it is stale, without the stages that it depends on but for that of the version.

    Raises:
        ModuleNotFoundError: DVC is not installed.
        RunFailed: the stage failed; its own output says why.
    """
    if find_spec("dvc") is None:
        raise ModuleNotFoundError(name="dvc")
    version = ["version"] if VERSION.is_file() else []
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *version, stage]
    if code := subprocess.run(command, check=False).returncode:  # noqa: S603
        raise RunFailed(f"`dvc repro --single-item {stage}` ended with exit code {code}")
