"""The pipeline, called from a verb: DVC in a process of its own, its lines as they come."""

import subprocess
import sys

from cots.errors import RunFailed


def reproduce(stage: str) -> None:
    """Run one stage if it is stale, and none of those it depends on.

    Raises:
        RunFailed: the stage failed; it has told why.
    """
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    if code := subprocess.run(command, check=False).returncode:  # noqa: S603
        raise RunFailed(f"`dvc repro --single-item {stage}` ended with exit code {code}")
