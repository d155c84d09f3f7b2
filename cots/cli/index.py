"""`cots index`: indexes a folder with pretrained encoders, before anything is trained."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cots.errors import BadInput, RunFailed
from cots.project_files import PARAMS_FILE


def index(
    folder: Annotated[Path, typer.Argument(help="Folder of images and videos, with or without captions.")],
    encoders: Annotated[
        str | None,
        typer.Option(
            help="A model that needs no training: the name of a file in presets/encoders/, a checkpoint of CLIP or "
            "SigLIP, a trained model's folder, or a registered version. By default what suits the hardware."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option(help="Replace params.yaml even if it was edited; the old file is kept.")
    ] = False,
) -> None:
    """Index a folder with a pretrained model, and deploy the index for `cots serve`. Trains nothing.

    Writes params.yaml as `cots init FOLDER` does, unless it is for this folder and model already. Afterwards `dvc
    repro` trains from this model, and `cots registry publish` deploys the result if it is better.
    """
    from cots.cli.init import init_folder
    from cots.cli.inspect_folder import require_hashable
    from cots.cli.pipeline import prepare
    from cots.cli.presets import require_trained_together
    from cots.cli.registry import format_result
    from cots.config.params import Params
    from cots.exclusive_run import exclusive_run
    from cots.zero_shot import has_captions, load_zero_shot_model, publish_zero_shot

    if not folder.expanduser().is_dir():
        raise BadInput(f"no such folder: {folder}")
    if encoders:
        require_trained_together(encoders)
    if _has_params_for(folder, encoders):
        require_hashable(folder.expanduser())
    else:
        init_folder(folder.expanduser(), encoders, force=force, show_next=False)
    with exclusive_run("cots index"):
        params = Params.load()
        model = load_zero_shot_model(params)  # first, because reading the images takes longer
        prepare()
        if has_captions():
            _validate()
        result = publish_zero_shot(params, model=model)
    typer.echo(format_result(result))
    if result.champion:
        typer.echo("to search it: `cots serve`, or `cots search TEXT`")


def _has_params_for(folder: Path, encoders: str | None) -> bool:
    """Whether params.yaml exists, reads this folder and starts from these encoders."""
    from cots.cli.presets import start_of
    from cots.config.params import Params

    if not PARAMS_FILE.is_file():
        return False
    params = Params.load(PARAMS_FILE)
    start = None if encoders is None else start_of(encoders)
    same_model = encoders is None or _is_same_place(params.model.init_from, start)
    return same_model and _is_same_place(params.source.path, folder)


def _is_same_place(first: Path | str | None, second: Path | str | None) -> bool:
    """Whether two names, such as `../clip` and `/models/clip`, are those of the same folder, file or model."""
    if first is None or second is None:
        return first is second
    return Path(first).expanduser().resolve() == Path(second).expanduser().resolve()


def _validate() -> None:
    """Validate the data; data that do not pass are indexed all the same.

    Raises:
        RunFailed: the stage failed before it had checked the data, so its summary is missing or of other data.
    """
    from cots.cli.pipeline import reproduce

    try:
        reproduce("validate")
    except RunFailed:
        if not _has_failed_checks():
            raise
        typer.echo("the data do not pass validation, which training needs; they are indexed all the same", err=True)


def _has_failed_checks() -> bool:
    """Whether the validation's summary exists and says that a check failed."""
    from cots.file_names import SUMMARY
    from cots.refresh import VALIDATION

    try:
        return not json.loads((VALIDATION / SUMMARY).read_text(encoding="utf8"))["success"]
    except (OSError, ValueError, KeyError):
        return False
