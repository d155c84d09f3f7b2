"""Earlier versions of a pipeline's files that are still in DVC's cache."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import yaml

from cots.project_files import LOCK_FILE


def past_versions(output: Path) -> Iterator[Path]:
    """Every cached version of a file that some run wrote or read, each once; none outside a DVC repository.

    Args:
        output: the file's path as in `dvc.yaml`.

    Source: DVC's run cache (https://dvc.org/doc/user-guide/pipelines/run-cache), one record of hashes per run.
    """
    cache = _cache_folder(Path())
    entry = re.compile(rf"^- path: {re.escape(output.as_posix())}\n(?:  .*\n)*?  md5: ([0-9a-f]{{32}})$", re.MULTILINE)
    records = sorted(path for path in (cache / "runs").glob("*/*/*") if path.is_file())
    hashes = {md5 for record in records for md5 in entry.findall(record.read_text(encoding="utf8"))}
    for md5 in sorted(hashes):
        path = cache / "files" / "md5" / md5[:2] / md5[2:]
        if path.is_file():
            yield path


def cached_in_folders(name: str, project: Path) -> Iterator[Path]:
    """Every cached version of a file that lies in a folder which DVC tracks; none outside a DVC repository.

    Args:
        name: of the file.
        project: a folder of the repository.
    """
    files = _cache_folder(project) / "files" / "md5"
    listings = (json.loads(path.read_bytes()) for path in sorted(files.glob("??/*.dir")))
    hashes = {entry["md5"] for entries in listings for entry in entries if PurePosixPath(entry["relpath"]).name == name}
    paths = (files / md5[:2] / md5[2:] for md5 in sorted(hashes))
    yield from (path for path in paths if path.is_file())


def _cache_folder(project: Path) -> Path:
    if not any((folder / ".dvc").is_dir() for folder in (project.resolve(), *project.resolve().parents)):
        return Path(".absent")
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)  # noqa: S603
    return project / (done.stdout.strip() or ".absent")


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
