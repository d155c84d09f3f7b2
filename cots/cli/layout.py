"""Lays out a project in a folder that has none, so that the installed package needs no checkout."""

import csv
import io
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from cots.cli.files import writing
from cots.cli.pipeline import VERSION
from cots.cli.presets import bundled
from cots.errors import BadInput, RunFailed
from cots.file_names import CHANGES_PATH, DATA, SUSPECTS_PATH, VERDICTS_PATH, WITHDRAWN_PATH
from cots.files import atomic_file
from cots.project_files import PIPELINE_FILE

GITIGNORE = Path(".gitignore")
CODE_LINE = re.compile(r" *- cots/\S+\s*")  # a dependency on this package's code
HEAD = f"""\
# The pipeline, written by `cots init`. `cmd` names every file that a stage reads or writes, except the source.
# All numbers are in params.yaml. An upgrade of cots changes {VERSION}, and so makes every stage stale.
stages:
  version:
    desc: writes the version of cots that runs the stages
    cmd: python -m cots --version > {VERSION}
    always_changed: true
    outs:
      - {VERSION}: {{cache: false}}

"""
DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"
OUTPUTS = (
    "/data/",
    "/changes/",
    "/models/",
    "/reports/",
    "/runs/",
    "/index/",
    "/package/",
    "/mlflow.db*",
    "/mlartifacts/",
    "/logs/",
)
DATA_OUTPUTS = ("shards", "tokens")  # folders in data/, which may hold others


def require_apart(source: Path) -> None:
    """Check that the pipeline writes no result into the folder of a source, nor below it.

    Raises:
        BadInput: it does. DVC would refuse every run, or take the images for a result that it may delete.
    """
    path, project = source.resolve(), Path().resolve()
    if project.is_relative_to(path):
        raise BadInput(f"{source} would hold the project beside its images: run `cots init` in a folder of its own")
    if not path.is_relative_to(project):
        return
    top, *below = path.relative_to(project).parts
    if f"/{top}/" in OUTPUTS and not (top == DATA.name and below and below[0] not in DATA_OUTPUTS):
        raise BadInput(f"{source} is where the pipeline writes its results: keep the images in another folder")


def require_dvc() -> None:
    """Check that a project can be laid out, where there is none.

    Raises:
        ModuleNotFoundError: DVC is not installed.
    """
    if not PIPELINE_FILE.exists() and find_spec("dvc") is None:
        raise ModuleNotFoundError(name="dvc")


def lay_out_project() -> Iterator[str]:
    """Write what a project needs beside params.yaml, unless the working folder has a dvc.yaml.

    Yields:
        A line for each action.

    Raises:
        BadInput: a file cannot be written.
        ModuleNotFoundError: DVC is not installed.
        RunFailed: git is not installed, or git or DVC fails.
    """
    from cots.data.quality.suspects import SUSPECT_COLUMNS
    from cots.data.verdicts import VERDICT_COLUMNS
    from cots.data.withdrawn import WITHDRAWN_COLUMNS

    require_dvc()
    if PIPELINE_FILE.exists():
        return
    if not _is_in_git():
        _run("git", "init", "-q")
        yield "git        `git init`: this folder was in no repository"
    lists = {
        WITHDRAWN_PATH: _csv_header(WITHDRAWN_COLUMNS),
        SUSPECTS_PATH: _csv_header(SUSPECT_COLUMNS),
        VERDICTS_PATH: _csv_header(VERDICT_COLUMNS),
        CHANGES_PATH: "\n",
    }
    for path in (path for path in lists if not path.exists()):
        _write(path, lists[path])
    _write(VERSION, f"cots {version('cots')}\n")
    ignored = GITIGNORE.read_text(encoding="utf8").splitlines() if GITIGNORE.is_file() else []
    new_lines = [line for line in (*OUTPUTS, f"/{VERSION}", "*.partial") if line not in ignored]
    _write(GITIGNORE, "\n".join([*ignored, *new_lines]) + "\n")
    if not Path(".dvc").is_dir():
        _run(sys.executable, "-m", "dvc", "init", "-q", "--subdir")
        _write(Path(".dvc/config"), DVC_CONFIG)
        yield "dvc        `dvc init`: results are cached in .dvc/cache"
    _write(PIPELINE_FILE, drop_code_deps(bundled(str(PIPELINE_FILE)).read_text(encoding="utf8")))
    yield f"project    {PIPELINE_FILE}, {', '.join(map(str, lists))}, {GITIGNORE}: commit them with params.yaml"


def drop_code_deps(pipeline: str) -> str:
    """Turn the pipeline of a checkout into that of a project without code.

    Args:
        pipeline: text of the checkout's dvc.yaml, in which lists are indented below their key.

    Returns:
        The same stages, which depend on the installed version instead of on code files.
    """
    lines = []
    for line in pipeline.partition("stages:\n")[2].splitlines():
        if not CODE_LINE.fullmatch(line):
            lines.append(line)
        if line.strip() == "deps:":
            lines.append(f"{line.replace('deps:', '')}  - {VERSION}")
    return HEAD + "\n".join(lines) + "\n"


def _csv_header(columns: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(columns)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with writing(path), atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf8")


def _is_in_git() -> bool:
    command = ["git", "rev-parse", "--is-inside-work-tree"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603
    except FileNotFoundError:
        raise RunFailed("no git here, which DVC needs: install it, and repeat this command") from None


def _run(*command: str) -> None:
    process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if process.returncode:
        reason = " ".join(process.stderr.split())
        raise RunFailed(f"`{' '.join(command)}` ended with exit code {process.returncode}: {reason}")
