"""Digest of parameters and inputs: runs with equal fingerprints have equal results."""

import hashlib
import json
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
