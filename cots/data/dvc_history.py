"""Earlier versions of a pipeline's files that are still in DVC's cache."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from cots.project_files import LOCK_FILE


def past_versions(output: Path) -> Iterator[Path]:
    """Every cached version of a file that some run wrote or read, each once; none outside a DVC repository.

    Args:
        output: the file's path as in `dvc.yaml`.

    Source: DVC's run cache (https://dvc.org/doc/user-guide/pipelines/run-cache), one record of hashes per run.
    """
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    cache = Path(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or ".absent")  # noqa: S603
    entry = re.compile(rf"^- path: {re.escape(output.as_posix())}\n(?:  .*\n)*?  md5: ([0-9a-f]{{32}})$", re.MULTILINE)
    records = sorted(path for path in (cache / "runs").glob("*/*/*") if path.is_file())
    hashes = {md5 for record in records for md5 in entry.findall(record.read_text(encoding="utf8"))}
    for md5 in sorted(hashes):
        path = cache / "files" / "md5" / md5[:2] / md5[2:]
        if path.is_file():
            yield path


def find_input(output: Path, dependency: Path) -> Path | None:
    """The version of a file that the stage read which wrote an output last: the current one, or one in DVC's cache.

    Args:
        output: of the stage, or a file in a folder that is.
        dependency: the file's path as in `dvc.yaml`.

    Returns:
        The current file if dvc.lock does not know the output; None if the version is lost.
    """
    md5 = _recorded_md5(output, dependency)
    with dependency.open("rb") as file:
        if md5 in (None, hashlib.file_digest(file, "md5").hexdigest()):
            return dependency
    return next((path for path in past_versions(dependency) if path.parent.name + path.name == md5), None)


def _recorded_md5(output: Path, dependency: Path) -> str | None:
    lock = yaml.safe_load(LOCK_FILE.read_text(encoding="utf8")) if LOCK_FILE.is_file() else {}
    written = {output.as_posix(), output.parent.as_posix()}
    for stage in lock.get("stages", {}).values():
        if any(entry["path"] in written for entry in stage.get("outs", ())):
            return next((e.get("md5") for e in stage["deps"] if e["path"] == dependency.as_posix()), None)
    return None
