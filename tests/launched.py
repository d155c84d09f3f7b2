"""Runs stages in several processes, as `dvc repro` does."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from cots.config.params import Params


def launched(
    folder: Path, processes: int, stage: str, *arguments: Path, params: Params, python: str = sys.executable
) -> None:
    """Run a stage in a folder with these parameters; `python` may be the fixture `fork_python`."""
    (folder / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)))
    command = [python, "-m", "cots.launch", f"cots.stages.{stage}", *map(str, arguments)]
    environment = os.environ | {"COTS_PROCESSES": str(processes), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
