"""`cots init`: a preset becomes `params.yaml`, whole and commented."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cots.errors import BadInput
from cots.files import atomic_file

if TYPE_CHECKING:
    from cots.config.params import Params

PARAMS, PRESETS = Path("params.yaml"), Path("presets")
Data = Annotated[Path | None, typer.Option(help="Where the images and captions are.")]
Force = Annotated[bool, typer.Option(help="Replace params.yaml with its own edits; they go to params.yaml.bak.")]


def init(
    preset: Annotated[str | None, typer.Argument(help="A file of presets/, without .yaml.")] = None,
    data: Data = None,
    force: Force = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Instead rewrite params.yaml: the same values under the present names.")
    ] = False,
) -> None:
    """Write params.yaml for a data set: the defaults, and what a preset changes of them."""
    if upgrade:
        if preset or data:
            raise BadInput("--upgrade rewrites params.yaml as it is: give it no preset and no --data")
        _upgrade()
        return
    if preset is None:
        raise BadInput(f"name a preset: there are {', '.join(_known())}")
    text = _rendered(preset, _with_data(preset, data))
    edited = PARAMS.is_file() and _is_edited()
    if edited and not force:
        raise BadInput(f"{PARAMS} has edits that no commit and no preset holds: commit them, or repeat with --force")
    _write(text, keep=edited)
    typer.echo(f"{PARAMS} is preset {preset}; now run: dvc repro")


def use(preset: Annotated[str, typer.Argument()], data: Data = None, force: Force = False) -> None:
    """Do what `cots init` does, under its name before 0.2.0."""
    print("cots use is now called cots init", file=sys.stderr)
    init(preset, data, force)


def _upgrade() -> None:
    from cots.config.params import Params
    from cots.config.render import render

    params = Params.load(PARAMS)
    _write(render(params, _header(PARAMS)), keep=True)
    typer.echo(f"{PARAMS} has the present names and every key; as it was, it is {PARAMS}.bak")


def _known() -> list[str]:
    """Names of the presets.

    Raises:
        BadInput: this is not the project's folder.
    """
    if known := sorted(path.stem for path in PRESETS.glob("*.yaml")):
        return known
    raise BadInput(f"no folder {PRESETS} here: run in the project's folder")


def _file(preset: str) -> Path:
    if preset not in _known():
        raise BadInput(f"no preset {preset!r}: there are {', '.join(_known())}")
    return PRESETS / f"{preset}.yaml"


def _with_data(preset: str, data: Path | None) -> dict[str, Any]:
    """A preset's values, its source at the path of the data."""
    from cots.config.sections import read_yaml

    values: dict[str, Any] = read_yaml(_file(preset))
    if data is None:
        if preset != "scenes":
            raise BadInput(f"preset {preset} needs --data PATH: where its images and captions are")
        return values
    data = data.expanduser()
    if not data.exists():
        raise BadInput(f"no such data: {data}")
    return values | {"source": values.get("source", {}) | {"path": str(data)}}


def _rendered(preset: str, values: dict[str, Any]) -> str:
    """The whole file.

    Raises:
        BadInput: the preset does not hold valid parameters.
    """
    from cots.config.params import Params
    from cots.config.render import render

    return render(Params.parse(values, _file(preset)), _header(_file(preset)))


def _header(path: Path) -> str:
    """The comment lines that a file begins with."""
    lines = path.read_text(encoding="utf8").splitlines(keepends=True)
    return "".join(takewhile(lambda line: line.startswith("#"), lines))


def _is_edited() -> bool:
    """Whether params.yaml holds something that neither git nor a preset could give back."""
    from cots.config.params import Params

    current = PARAMS.read_text(encoding="utf8")
    done = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True, check=False)  # noqa: S603, S607
    if done.returncode == 0 and done.stdout.decode() == current:
        return False
    try:
        params = Params.load(PARAMS)
    except BadInput:
        return True
    return current not in _texts_of_presets(params)


def _texts_of_presets(params: "Params") -> Iterator[str]:
    """What `cots init` would write from each preset for the data of some parameters."""
    from cots.config.sections import read_yaml

    for preset in _known():
        values: dict[str, Any] = read_yaml(_file(preset))
        source = values.get("source", {}) | {"path": str(params.source.path)}
        yield _rendered(preset, values | {"source": source})


def _write(text: str, *, keep: bool) -> None:
    with atomic_file(PARAMS) as aside:
        aside.write_text(text, encoding="utf8")
        if keep:
            PARAMS.replace(f"{PARAMS}.bak")
