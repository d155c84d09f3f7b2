"""Where a thing came from: digests of files and folders, and the commit that was checked out."""

import hashlib
import subprocess
from pathlib import Path

from cots.errors import BadInput


def text_digest(text: str) -> str:
    """Sha256 of a text in UTF-8, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(folder: Path) -> str:
    """Sha256 over everything in an MLflow model folder but `MLmodel`, which carries a date and a random id.

    Raises:
        BadInput: the folder is not an MLflow model.
    """
    if not (folder / "MLmodel").is_file():
        raise BadInput(f"{folder} is not an MLflow model folder: run `dvc repro package`")
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    kept = [(name, path) for name, path in files if name != "MLmodel" and "__pycache__" not in path.parts]
    return text_digest("\n".join(f"{file_digest(path)} {name}" for name, path in kept))


def git_state() -> dict[str, str]:
    """Tags `git.commit` and `git.dirty`; none outside a git checkout.

    `dvc.lock` does not count as dirt: `dvc repro` rewrites it while its stages run, and its digest is kept besides.
    """
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/dvc.lock")
    return {"git.commit": commit, "git.dirty": str(bool(changed)).lower()}


def _git(*arguments: str) -> str:
    """What git answers; empty where there is no git, no repository or no commit."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
