"""`cots init`: writes a complete, commented `params.yaml` for a folder that it inspects, or from a preset."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from cots.cli.files import writing
from cots.cli.presets import is_preset, preset_names, read_header, read_preset, render_preset
from cots.errors import BadInput
from cots.files import atomic_file
from cots.project_files import PARAMS_FILE
from cots.terminal import escape_controls

SEAL = "# Written by `cots init FOLDER`, unchanged since if the rest has the SHA-256 "
Data = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Folder of the images and captions, for a preset; or s3://BUCKET/FOLDER."),
]
Force = Annotated[
    bool, typer.Option(help="Replace params.yaml even if it was edited; the old file becomes params.yaml.bak.")
]


def init(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[FOLDER|PRESET]",
            help="A folder of images or videos; or the name of a file in presets/, without .yaml.",
        ),
    ] = None,
    data: Data = None,
    encoders: Annotated[
        str | None,
        typer.Option(
            help="What training starts from: the name of a file in presets/encoders/, without .yaml, or a model: a "
            "folder, a file, a registered version or a name of the hub, also of CLIP and SigLIP. By default what the "
            "preset names, or for a folder what suits the hardware."
        ),
    ] = None,
    table: Annotated[str | None, typer.Option(help="The caption table in FOLDER, if it holds several.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of the table with the paths of images.")] = None,
    caption_column: Annotated[str | None, typer.Option(help="Column of the table with the captions.")] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            help="Column with the label of each image; without a table a name for that of the folders that images lie "
            "in. `cots data describe` makes captions from labels."
        ),
    ] = None,
    include_unlisted: Annotated[
        bool, typer.Option("--include-unlisted", help="Also index images that the table does not name.")
    ] = False,
    force: Force = False,
    upgrade: Annotated[
        bool,
        typer.Option("--upgrade", help="Only rewrite params.yaml with the current names of its keys; the values stay."),
    ] = False,
) -> None:
    """Write params.yaml for a folder of images or videos, or for a data set by a preset.

    Where there is no dvc.yaml it also lays out a project: the pipeline, the lists that people edit, git and DVC.
    """
    columns = {
        "table": table,
        "image_column": image_column,
        "caption_column": caption_column,
        "label_column": label_column,
    }
    if upgrade:
        if source or data or encoders:
            raise BadInput("--upgrade rewrites params.yaml as it is: give it no folder, no preset and no other option")
        _upgrade()
        return
    if source is None:
        raise BadInput(f"name a folder of images or videos, or a preset, one of {', '.join(preset_names())}")
    if source in preset_names() or not Path(source).expanduser().is_dir():
        if any(columns.values()) or include_unlisted:
            raise BadInput("options for a table go with a folder: cots init FOLDER")
        _init_preset(source, data, encoders, force=force)
        return
    if data:
        raise BadInput(f"{source} is the data: leave --data out")
    init_folder(
        Path(source).expanduser(), encoders, force=force, include_unlisted=include_unlisted, show_next=True, **columns
    )


def use(preset: Annotated[str, typer.Argument()], data: Data = None, force: Force = False) -> None:
    """Old name of `cots init`."""
    print("cots use is now called cots init", file=sys.stderr)
    _init_preset(preset, data, None, force=force)


def _init_preset(preset: str, data: str | None, encoders: str | None, *, force: bool) -> None:
    from cots.cli.layout import lay_out_project, require_apart
    from cots.data.bucket import in_bucket, parse_location

    try:
        path = parse_location(data) if data else None
    except ValueError as error:
        raise BadInput(str(error)) from None
    if path and not in_bucket(path):
        require_apart(path)
    text = render_preset(preset, read_preset(preset, path), encoders)
    layout_lines = list(lay_out_project())
    _replace_params(text, force=force)
    for line in layout_lines:
        typer.echo(line)
    start = f" with encoders {encoders}" if encoders else ""
    typer.echo(f"{PARAMS_FILE} is preset {preset}{start}; now run: dvc repro")


def init_folder(
    folder: Path,
    encoders: str | None,
    *,
    force: bool,
    show_next: bool,
    include_unlisted: bool = False,
    table: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
) -> None:
    """Write params.yaml for a folder, lay out a project if there is none, and print what the folder holds.

    Args:
        folder, encoders, force, include_unlisted, table, image_column, caption_column, label_column: as for
            `cots init`.
        show_next: also print what to type next.

    Raises:
        BadInput: the folder cannot be used, there are no such encoders, or params.yaml was edited.
        ModuleNotFoundError: there is no project yet, and DVC is not installed.
    """
    from cots.cli.inspect_folder import inspect_folder, require_hashable
    from cots.cli.layout import lay_out_project, require_apart, require_dvc
    from cots.cli.proposal import Proposal
    from cots.data.samples import is_utf8

    require_dvc()
    require_apart(folder)
    require_hashable(folder)
    findings = inspect_folder(
        folder,
        table=table,
        image_column=image_column,
        caption_column=caption_column,
        label_column=label_column,
        include_unlisted=include_unlisted,
    )
    proposal = Proposal(findings, encoders)
    rendered = proposal.render()
    if not is_utf8(rendered):
        raise BadInput(f"{PARAMS_FILE} is UTF-8, and the name {folder} or one of its columns is not: rename it")
    text = _seal(rendered)
    layout_lines = list(lay_out_project())
    _replace_params(text, force=force)
    for line in (*proposal.lines(), *layout_lines, *(proposal.next_lines() if show_next else ())):
        typer.echo(escape_controls(line))


def _upgrade() -> None:
    from cots.config.params import Params
    from cots.config.render import render

    params = Params.load(PARAMS_FILE)
    text = render(params, read_header(PARAMS_FILE))
    if PARAMS_FILE.read_text(encoding="utf8") == text:
        typer.echo(f"{PARAMS_FILE} has the current names and every key already")
        return
    _write(text, keep=True)
    typer.echo(f"{PARAMS_FILE} has the current names and every key; the old file is {PARAMS_FILE}.bak")


def _replace_params(text: str, *, force: bool) -> None:
    edited = PARAMS_FILE.is_file() and _is_edited()
    if edited and not force:
        raise BadInput(
            f"{PARAMS_FILE} has edits that are in no commit and no preset: commit them, or repeat with --force"
        )
    _write(text, keep=edited)


def _is_edited() -> bool:
    """Whether params.yaml has changes that neither git nor `cots init` can restore."""
    from cots.config.params import Params

    current = PARAMS_FILE.read_bytes()
    committed = subprocess.run(["git", "show", f"HEAD:./{PARAMS_FILE}"], capture_output=True, check=False)  # noqa: S603, S607
    if committed.returncode == 0 and committed.stdout == current:
        return False
    try:
        params = Params.load(PARAMS_FILE)
    except BadInput:
        return True
    text = current.decode()
    seal, _, rest = text.partition("\n")
    if seal.startswith(SEAL):
        return _seal(rest) != text
    return not is_preset(text, params)


def _seal(text: str) -> str:
    """The text below a line with its digest, which shows later whether it was edited."""
    from cots.digests import text_digest

    return f"{SEAL}{text_digest(text)[:12]}\n{text}"


def _write(text: str, *, keep: bool) -> None:
    with writing(PARAMS_FILE), atomic_file(PARAMS_FILE) as temporary:
        temporary.write_text(text, encoding="utf8")
        if keep:
            PARAMS_FILE.replace(f"{PARAMS_FILE}.bak")
