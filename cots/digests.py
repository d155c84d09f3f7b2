"""Digests of texts, files and folders."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from cots.errors import BadInput

MLMODEL = "MLmodel"  # what makes a folder a model of MLflow
MLFLOW_FILES = (MLMODEL, "registered_model_meta")  # a date and a random id; what MLflow adds to a fetched folder
SUMS = "artifacts.sha256"  # in a packaged model, in the format of sha256sum
MEASURED = "artifacts/index/index.json"  # has times of search beside facts about the files next to it


def text_digest(text: str) -> str:
    """SHA-256 of a text in UTF-8, as hex digits."""
    return bytes_digest(text.encode())


def bytes_digest(content: bytes) -> str:
    """SHA-256 of some bytes, as hex digits."""
    return hashlib.sha256(content).hexdigest()


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
    if not (folder / MLMODEL).is_file():
        raise BadInput(f"{folder} is not an MLflow model folder: run `dvc repro package`")
    left_out = MLFLOW_FILES if with_times else (*MLFLOW_FILES, MEASURED)
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    lines = [
        f"{file_digest(path)} {name}"
        for name, path in files
        if name not in left_out and "__pycache__" not in path.parts
    ]
    return text_digest("\n".join(lines))


def verify_content(folder: Path, tags: Mapping[str, str], *, name: str) -> None:
    """Compare all files of a registered version with its digest, before any of them is parsed.

    Args:
        folder: of the version's files.
        tags: of the version, of either model; without a digest, nothing is compared.
        name: of the version in the error message.

    Raises:
        BadInput: a file was changed or damaged after the version was registered.
    """
    registered = tags.get("content.digest") or tags.get("encoders.content")  # the latter of cots-encoders
    if registered and registered not in (content_digest(folder), content_digest(folder, with_times=True)):
        raise BadInput(
            f"{name} is damaged, its files are not those that were registered: restore them from a back-up, or deploy "
            "another version by `cots registry promote`"
        )


def write_sums(folder: Path) -> None:
    """Write the digests of a model's artifacts, for who has the folder without the registry."""
    (folder / SUMS).write_text("".join(f"{line}\n" for line in _sum_lines(folder)), encoding="utf8")


def verify_sums(folder: Path) -> None:
    """Compare a model's artifacts with the digests beside them; models from before release 0.3 have none.

    Raises:
        BadInput: a file is missing, was added, changed or damaged.
    """
    if (folder / SUMS).is_file() and (folder / SUMS).read_text(encoding="utf8").splitlines() != _sum_lines(folder):
        raise BadInput(f"{folder} is damaged, its artifacts are not those of {SUMS}: fetch the model again")


def _sum_lines(folder: Path) -> list[str]:
    files = {path.relative_to(folder).as_posix(): path for path in (folder / "artifacts").rglob("*") if path.is_file()}
    return [f"{file_digest(files[name])}  {name}" for name in sorted(files) if name != MEASURED]
