"""Training from Python: a project folder, `cots init` and `dvc repro`, as at the command line."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cots.api.inputs import folder_path
from cots.api.model import Model, load
from cots.config.params import Params
from cots.config.render import render
from cots.errors import BadInput, RunFailed
from cots.files import atomic_file
from cots.project_files import PARAMS_FILE


def finetune(
    folder: str | os.PathLike[str],
    project: str | os.PathLike[str],
    *,
    encoders: str | None = None,
    params: Mapping[str, object] | None = None,
) -> Model:
    """Train encoders on the images and captions of a folder.

    In the project's folder it does what `cots init FOLDER` and `dvc repro` do: stages that are up to date do not run
    again, an interrupted run resumes, and `cots registry publish` deploys the result if it passes the gate.

    Args:
        folder: images or videos with captions, in a form that `cots init` reads.
        project: the project's folder, outside of `folder`; a new one is laid out, an old one keeps its params.yaml.
        encoders: what training starts from, as in `cots init --encoders`; by default what suits the hardware.
        params: changes to params.yaml by dotted key, such as {"finetune.image-text.steps": 100}.

    Returns:
        The encoders fine-tuned for the target that the project's index uses.

    Raises:
        BadInput: the folder or a parameter cannot be used.
        RunFailed: a stage failed; its own output says why.
    """
    source, path = folder_path(folder).resolve(), folder_path(project).resolve()
    path.mkdir(parents=True, exist_ok=True)
    if not (path / PARAMS_FILE).is_file():
        _run(path, "cots", "init", str(source), *(["--encoders", encoders] if encoders else []))
    elif encoders:
        raise BadInput(
            f"{path / PARAMS_FILE} says what training starts from: leave encoders out, or give a new project"
        )
    else:
        _require_source(source, path)
    if params:
        _change_params(path / PARAMS_FILE, params)
    _run(path, "dvc", "repro")
    return load(path / "models" / "finetuned" / Params.load(path / PARAMS_FILE).index.target)


def _require_source(source: Path, project: Path) -> None:
    """Check that the project trains on the given folder.

    Raises:
        BadInput: it trains on another one.
    """
    trained_on = (project / Params.load(project / PARAMS_FILE).source.path.expanduser()).resolve()
    if trained_on != source:
        raise BadInput(f"{project / PARAMS_FILE} trains on {trained_on}: give that folder, or a new project")


def _change_params(file: Path, changes: Mapping[str, object]) -> None:
    """Set keys of a parameter file, given by their dotted names."""
    values = Params.load(file).dump_all()
    for name, value in changes.items():
        *sections, key = name.split(".")
        section = values
        for part in sections:
            if not isinstance(section.get(part), dict):
                raise BadInput(f"{file} has no section {part} for {name}")
            section = section[part]
        section[key] = value
    text = render(Params.parse(values, file), "# Written by `cots init`, and changed by cots.finetune.\n")
    with atomic_file(file) as partial:
        partial.write_text(text, encoding="utf8")


def _run(project: Path, module: str, *arguments: str) -> None:
    code = subprocess.run([sys.executable, "-m", module, *arguments], cwd=project, check=False).returncode  # noqa: S603
    if code == BadInput.exit_code and module == "cots":
        raise BadInput(f"`cots {' '.join(arguments)}` cannot use it: see above")
    if code:
        raise RunFailed(f"`{module} {' '.join(arguments)}` in {project} ended with exit code {code}: see above")
