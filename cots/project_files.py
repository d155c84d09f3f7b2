"""Files that define a project, in its folder."""

from pathlib import Path

PARAMS_FILE, PIPELINE_FILE, LOCK_FILE = Path("params.yaml"), Path("dvc.yaml"), Path("dvc.lock")
