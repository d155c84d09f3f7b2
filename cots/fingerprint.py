"""Digest of parameters and inputs: two runs with the same one end the same."""

import hashlib
import json
from pathlib import Path


def fingerprint(values: object, *inputs: Path) -> str:
    """Digest of parameters (as JSON) and of input files and folders: two runs with the same one end the same.

    Args:
        values: anything that JSON can hold.
        inputs: files, or folders whose files count in the order of their names.
    """
    sha = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for path in inputs:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as opened:
                sha.update(hashlib.file_digest(opened, "sha256").digest())
    return sha.hexdigest()
