"""Digest of parameters and inputs: runs with equal fingerprints have equal results."""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def fingerprint(values: object, *inputs: Path | bytes) -> str:
    """Digest of parameters (as JSON) and of input files and folders: equal fingerprints mean equal results.

    Args:
        values: any JSON-serializable value.
        inputs: files, or folders, whose files are read in the order of their paths; or SHA-256 digests of files.
    """
    sha = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for path in inputs:
        if isinstance(path, bytes):
            sha.update(path)
            continue
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as opened:
                sha.update(hashlib.file_digest(opened, "sha256").digest())
    return sha.hexdigest()


def code_digest(packages: Sequence[str]) -> bytes:
    """SHA-256 of all code of COTS, and of the versions of Python and of some installed packages."""
    versions = [sys.version, *map(version, packages)]
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return bytes.fromhex(fingerprint([versions, [file.name for file in files]], *files))


def clear_unless_current(current: str, out: Path) -> None:
    """Empty the folder unless its fingerprint file has the current fingerprint of parameters and inputs."""
    file = out / "fingerprint.txt"
    if not file.is_file() or file.read_text() != current:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        file.write_text(current)
