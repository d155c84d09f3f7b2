"""Digests of texts, files and folders."""

import hashlib
from pathlib import Path

from cots.errors import BadInput

# MLflow's file has a date and a random id; the index's has measured times beside facts about the files next to it.
VARYING = ("MLmodel", "artifacts/index/index.json")


def text_digest(text: str) -> str:
    """SHA-256 of a text in UTF-8, as hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(folder: Path) -> str:
    """SHA-256 of an MLflow model folder without the files in `VARYING`, which differ each time it is built.

    Raises:
        BadInput: the folder is not an MLflow model.
    """
    if not (folder / "MLmodel").is_file():
        raise BadInput(f"{folder} is not an MLflow model folder: run `dvc repro package`")
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    lines = [
        f"{file_digest(path)} {name}" for name, path in files if name not in VARYING and "__pycache__" not in path.parts
    ]
    return text_digest("\n".join(lines))
