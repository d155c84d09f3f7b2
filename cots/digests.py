"""Digests of texts, files and folders."""

import hashlib
from pathlib import Path

from cots.errors import BadInput

MLFLOW_FILES = ("MLmodel", "registered_model_meta")  # a date and a random id; what MLflow adds to a fetched folder
MEASURED = "artifacts/index/index.json"  # has times of search beside facts about the files next to it


def text_digest(text: str) -> str:
    """SHA-256 of a text in UTF-8, as hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(folder: Path, *, with_times: bool = False) -> str:
    """SHA-256 of an MLflow model folder, without what differs each time that it is built and without compiled code.

    Args:
        folder: of the model.
        with_times: include measured times, as in digests that were registered before release 0.3.

    Raises:
        BadInput: the folder is not an MLflow model.
    """
    if not (folder / "MLmodel").is_file():
        raise BadInput(f"{folder} is not an MLflow model folder: run `dvc repro package`")
    left_out = MLFLOW_FILES if with_times else (*MLFLOW_FILES, MEASURED)
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    lines = [
        f"{file_digest(path)} {name}"
        for name, path in files
        if name not in left_out and "__pycache__" not in path.parts
    ]
    return text_digest("\n".join(lines))
