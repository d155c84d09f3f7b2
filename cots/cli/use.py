"""`cots use`: a preset becomes `params.yaml`."""

import json
import re
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from cots.errors import BadInput
from cots.files import atomic_file

PARAMS, PRESETS = Path("params.yaml"), Path("presets")
SOURCE_PATH = re.compile(r"^(source:\n(?:[ #].*\n)*?  path: *)(\"[^\"\n]*\"|[^ \n]+)", re.MULTILINE)


def use(
    preset: Annotated[str, typer.Argument(help="A file of presets/, without .yaml.")],
    data: Annotated[Path | None, typer.Option(help="Where the pictures and captions are.")] = None,
    force: Annotated[
        bool, typer.Option(help="Replace params.yaml with its own edits; they go to params.yaml.bak.")
    ] = False,
) -> None:
    """Write params.yaml for a data set from a preset."""
    text = _filled(_preset(preset), preset, data)
    edited = PARAMS.is_file() and _is_edited()
    if edited and not force:
        raise BadInput(f"{PARAMS} has edits that no commit and no preset holds: commit them, or repeat with --force")
    _write(text, keep=edited)
    typer.echo(f"{PARAMS} is preset {preset}; now run: dvc repro")


def _preset(name: str) -> str:
    known = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if not known:
        raise BadInput(f"no folder {PRESETS} here: run in the project's folder")
    if name not in known:
        raise BadInput(f"no preset {name!r}: there are {', '.join(known)}")
    return (PRESETS / f"{name}.yaml").read_text(encoding="utf8")


def _filled(text: str, preset: str, data: Path | None) -> str:
    """The preset with its source's path replaced; comments stay."""
    if data is None:
        if preset != "scenes":
            raise BadInput(f"preset {preset} needs --data PATH: where its pictures and captions are")
        return text
    data = data.expanduser()
    if not data.exists():
        raise BadInput(f"no such data: {data}")
    if not SOURCE_PATH.search(text):
        raise BadInput(f"{PRESETS / preset}.yaml has no line `path:` in its section `source`")
    quoted = json.dumps(str(data), ensure_ascii=False)
    return SOURCE_PATH.sub(lambda found: found[1] + quoted, text, count=1)


def _is_edited() -> bool:
    """Whether params.yaml holds something that neither git nor a preset could give back."""
    current = PARAMS.read_text(encoding="utf8")
    done = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True, check=False)  # noqa: S603, S607
    if done.returncode == 0 and done.stdout.decode() == current:
        return False
    return all(_pathless(path.read_text(encoding="utf8")) != _pathless(current) for path in PRESETS.glob("*.yaml"))


def _pathless(text: str) -> str:
    return SOURCE_PATH.sub(r"\1", text, count=1)


def _write(text: str, *, keep: bool) -> None:
    """Check the new file, then put it in place.

    Raises:
        BadInput: the preset does not hold valid parameters.
    """
    from cots.config import Params

    with atomic_file(PARAMS) as aside:
        aside.write_text(text, encoding="utf8")
        Params.load(aside)
        if keep:
            PARAMS.replace("params.yaml.bak")
