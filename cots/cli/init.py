"""`cots init`: writes a complete, commented `params.yaml` from the defaults and a preset."""

import subprocess
import sys
from collections.abc import Iterator
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
Data = Annotated[Path | None, typer.Option(help="Folder of the images and captions.")]
Force = Annotated[
    bool, typer.Option(help="Replace params.yaml even if it was edited; the old file becomes params.yaml.bak.")
]


def init(
    preset: Annotated[str | None, typer.Argument(help="Name of a file in presets/, without .yaml.")] = None,
    data: Data = None,
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
        if preset or data:
            raise BadInput("--upgrade rewrites params.yaml as it is: give it no preset and no --data")
        _upgrade()
        return
    if preset is None:
        raise BadInput(f"name a preset, one of {', '.join(_preset_names())}")
    text = _render(preset, _read_preset(preset, data))
    edited = PARAMS.is_file() and _is_edited()
    if edited and not force:
        raise BadInput(f"{PARAMS} has edits that are in no commit and no preset: commit them, or repeat with --force")
    _write(text, keep=edited)
    typer.echo(f"{PARAMS} is preset {preset}; now run: dvc repro")


def use(preset: Annotated[str, typer.Argument()], data: Data = None, force: Force = False) -> None:
    """Old name of `cots init`."""
    print("cots use is now called cots init", file=sys.stderr)
    init(preset, data, force)


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


def _preset_names() -> list[str]:
    """Names of the presets.

    Raises:
        BadInput: this is not the project's folder.
    """
    if names := sorted(path.stem for path in PRESETS.glob("*.yaml")):
        return names
    raise BadInput(f"no folder {PRESETS} here: run in the project's folder")


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


def _render(preset: str, values: dict[str, Any]) -> str:
    """The complete file.

    Raises:
        BadInput: the preset does not hold valid parameters.
    """
    from cots.config.params import Params
    from cots.config.render import render

    return render(Params.parse(values, _preset_file(preset)), _header(_preset_file(preset)))


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
    """What `cots init` would write from each preset for the same data."""
    from cots.config.sections import read_yaml

    for preset in _preset_names():
        values: dict[str, Any] = read_yaml(_preset_file(preset))
        source = values.get("source", {}) | {"path": str(params.source.path)}
        yield _render(preset, values | {"source": source})


def _write(text: str, *, keep: bool) -> None:
    with writing(PARAMS), atomic_file(PARAMS) as temporary:
        temporary.write_text(text, encoding="utf8")
        if keep:
            PARAMS.replace(f"{PARAMS}.bak")
