"""`cots init`: writes a complete, commented `params.yaml` from the defaults and a preset."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cots.cli.files import writing
from cots.errors import BadInput
from cots.files import atomic_file

if TYPE_CHECKING:
    from cots.config.params import Params

PARAMS, PRESETS = Path("params.yaml"), Path("presets")
ENCODERS, INIT_FROM_RECIPE = PRESETS / "encoders", PRESETS / "recipes" / "init_from.yaml"
Data = Annotated[Path | None, typer.Option(help="Folder of the images and captions.")]
Force = Annotated[
    bool, typer.Option(help="Replace params.yaml even if it was edited; the old file becomes params.yaml.bak.")
]


def init(
    preset: Annotated[str | None, typer.Argument(help="Name of a file in presets/, without .yaml.")] = None,
    data: Data = None,
    encoders: Annotated[
        str | None,
        typer.Option(
            help="What training starts from: the name of a file in presets/encoders/, without .yaml, or a folder or "
            "file of a model, also of CLIP and SigLIP. By default as the preset says."
        ),
    ] = None,
    force: Force = False,
    upgrade: Annotated[
        bool,
        typer.Option(
            "--upgrade", help="Instead rewrite params.yaml with the current names of all keys and the same values."
        ),
    ] = False,
) -> None:
    """Write params.yaml for a data set: the defaults, changed by a preset."""
    if upgrade:
        if preset or data or encoders:
            raise BadInput("--upgrade rewrites params.yaml as it is: give it no preset, no --data and no --encoders")
        _upgrade()
        return
    if preset is None:
        raise BadInput(f"name a preset, one of {', '.join(_preset_names())}")
    text = _render(preset, _read_preset(preset, data), encoders)
    edited = PARAMS.is_file() and _is_edited()
    if edited and not force:
        raise BadInput(f"{PARAMS} has edits that are in no commit and no preset: commit them, or repeat with --force")
    _write(text, keep=edited)
    start = f" with encoders {encoders}" if encoders else ""
    typer.echo(f"{PARAMS} is preset {preset}{start}; now run: dvc repro")


def use(preset: Annotated[str, typer.Argument()], data: Data = None, force: Force = False) -> None:
    """Old name of `cots init`."""
    print("cots use is now called cots init", file=sys.stderr)
    init(preset, data, force=force)


def _upgrade() -> None:
    from cots.config.params import Params
    from cots.config.render import render

    params = Params.load(PARAMS)
    text = render(params, _header(PARAMS))
    if PARAMS.read_text(encoding="utf8") == text:
        typer.echo(f"{PARAMS} has the current names and every key already")
        return
    _write(text, keep=True)
    typer.echo(f"{PARAMS} has the current names and every key; the old file is {PARAMS}.bak")


def _preset_names(folder: Path = PRESETS) -> list[str]:
    """Names of the presets, or of the encoders.

    Raises:
        BadInput: this is not the project's folder.
    """
    if names := sorted(path.stem for path in folder.glob("*.yaml") if "." not in path.stem):
        return names
    raise BadInput(f"no folder {folder} here: run in the project's folder")


def _preset_file(preset: str) -> Path:
    if preset not in _preset_names():
        raise BadInput(f"no preset {preset!r}: give one of {', '.join(_preset_names())}")
    return PRESETS / f"{preset}.yaml"


def _read_preset(preset: str, data: Path | None) -> dict[str, Any]:
    """A preset's values, with the path of the data as its source."""
    from cots.config.sections import read_yaml

    values: dict[str, Any] = read_yaml(_preset_file(preset))
    if data is None:
        if preset != "scenes":
            raise BadInput(f"preset {preset} needs --data PATH: where its images and captions are")
        return values
    data = data.expanduser()
    if not data.exists():
        raise BadInput(f"no such data: {data}")
    return values | {"source": values.get("source", {}) | {"path": str(data)}}


def _with_encoders(preset: str, values: dict[str, Any], encoders: str) -> dict[str, Any]:
    """A preset's values with some encoders; section `finetune` of these changes every run of the preset.

    Args:
        preset: its name; a file `ENCODERS.PRESET.yaml` says what changes for both together.
        values: of the preset.
        encoders: name of a file in presets/encoders, or a folder or file of a model.

    Raises:
        BadInput: it is neither.
    """
    from cots.config.sections import read_yaml

    if encoders in _preset_names(ENCODERS):
        changes: dict[str, Any] = {}
        for file in _encoder_files(preset, encoders):
            changes = merge(changes, read_yaml(file))
    elif Path(encoders).expanduser().exists():
        changes = _start_values(Path(encoders).expanduser())
    else:
        names = ", ".join(_preset_names(ENCODERS))
        raise BadInput(f"no encoders {encoders!r}: give a folder or file, or one of {names}")
    if changes["model"].get("init_from"):
        changes = merge(read_yaml(INIT_FROM_RECIPE), changes)
    run = changes.get("finetune", {}) | {"size": changes["model"]["image"]["size"]}
    targets = values.get("finetune", {"image-text": {}})
    changes = {name: section for name, section in changes.items() if name != "finetune"}
    return merge(values, changes) | {"finetune": {target: merge(tuned, run) for target, tuned in targets.items()}}


def _encoder_files(preset: str, encoders: str) -> list[Path]:
    """The files of some encoders, first for every preset, then for this one; none for a model at a path."""
    files = (ENCODERS / f"{encoders}.yaml", ENCODERS / f"{encoders}.{preset}.yaml")
    return [file for file in files if file.is_file()]


@cache
def _start_values(start: Path) -> dict[str, Any]:
    """What params.yaml says to start from a model at a path.

    Args:
        start: a model's folder or file; its images may be larger by a part of a patch.
    """
    from cots.tracking.loading import load_encoders

    image = load_encoders(str(start)).config["image"]
    size = image["size"] // image["patch"] * image["patch"]
    model = {"init_from": str(start), "image": {"size": size, "patch": image["patch"]}}
    return {"prepare": {"size": image["size"]}, "model": model}


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested values with changes; `options` of a model are replaced as a whole."""
    merged = dict(values)
    for key, change in changes.items():
        nested = isinstance(change, dict) and isinstance(merged.get(key), dict) and key != "options"
        merged[key] = merge(merged[key], change) if nested else change
    return merged


def _render(preset: str, values: dict[str, Any], encoders: str | None) -> str:
    """The complete file.

    Args:
        preset: its name; values: of its file, with the path of the data.
        encoders: other ones than those that the preset names.

    Raises:
        BadInput: the preset does not hold valid parameters.
    """
    from cots.config.params import Params
    from cots.config.render import render

    header, named = _header(_preset_file(preset)), values.get("encoders")
    values = {key: value for key, value in values.items() if key != "encoders"}
    if start := encoders or named:
        header += "".join(_header(file) for file in _encoder_files(preset, start))
        values = _with_encoders(preset, values, start)
    return render(Params.parse(values, _preset_file(preset)), header)


def _header(path: Path) -> str:
    """The comment lines at the beginning of a file."""
    lines = path.read_text(encoding="utf8").splitlines(keepends=True)
    return "".join(takewhile(lambda line: line.startswith("#"), lines))


def _is_edited() -> bool:
    """Whether params.yaml has changes that neither git nor a preset could restore."""
    from cots.config.params import Params

    current = PARAMS.read_bytes()
    committed = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True, check=False)  # noqa: S603, S607
    if committed.returncode == 0 and committed.stdout == current:
        return False
    try:
        params = Params.load(PARAMS)
    except BadInput:
        return True
    return current not in (text.encode() for text in _render_presets(params))


def _render_presets(params: "Params") -> Iterator[str]:
    """What `cots init` would write from each preset, with any encoders, for the same data."""
    from cots.config.sections import read_yaml

    for preset in _preset_names():
        values: dict[str, Any] = read_yaml(_preset_file(preset))
        source = values.get("source", {}) | {"path": str(params.source.path)}
        start = params.model.init_from
        paths = [start] if start and Path(start).expanduser().exists() else []
        for encoders in (None, *_preset_names(ENCODERS), *paths):
            with suppress(BadInput):  # a preset that is not valid cannot have been written
                yield _render(preset, values | {"source": source}, encoders)


def _write(text: str, *, keep: bool) -> None:
    with writing(PARAMS), atomic_file(PARAMS) as temporary:
        temporary.write_text(text, encoding="utf8")
        if keep:
            PARAMS.replace(f"{PARAMS}.bak")
