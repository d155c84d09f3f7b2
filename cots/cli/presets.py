"""Presets and encoders of `cots init`: from their names to the text of a complete parameter file."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cots
from cots.errors import BadInput, CotsError

if TYPE_CHECKING:
    from cots.config.params import Params

PRESETS, ENCODERS, INIT_FROM_RECIPE = "presets", "presets/encoders", "presets/recipes/init_from.yaml"
PACKAGE = Path(cots.__file__).parent


def bundled(name: str) -> Path:
    """A file or folder of this project: that of the working folder if it is a checkout, or what this code came with.

    Args:
        name: relative to a checkout, such as `presets`.
    """
    if Path(ENCODERS).is_dir() and Path(name).exists():
        return Path(name)
    of_wheel = PACKAGE / "project"  # pyproject.toml puts it there
    return (of_wheel if of_wheel.is_dir() else PACKAGE.parent) / name


def preset_names(folder: str = PRESETS) -> list[str]:
    """Names of the presets, or of the encoders."""
    return sorted(path.stem for path in bundled(folder).glob("*.yaml") if "." not in path.stem)


def preset_file(preset: str) -> Path:
    """The file of a preset.

    Raises:
        BadInput: there is no such preset.
    """
    if preset not in preset_names():
        names = ", ".join(preset_names())
        raise BadInput(
            f"{preset!r} is neither a folder nor a preset: give a folder of images or videos, or one of {names}"
        )
    return bundled(PRESETS) / f"{preset}.yaml"


def read_preset(preset: str, data: Path | None) -> dict[str, Any]:
    """A preset's values, with the path of the data as its source.

    Raises:
        BadInput: there is no such preset or no such data.
    """
    from cots.config.sections import read_yaml

    values: dict[str, Any] = read_yaml(preset_file(preset))
    if data is None:
        if preset != "scenes":
            raise BadInput(f"preset {preset} needs --data PATH: where its images and captions are")
        if Path(PRESETS).is_dir():  # a checkout, where the default path of the grammar leads to it
            return values
        data = PACKAGE / "data/scenes.yaml"
    data = data.expanduser()
    if not data.exists():
        raise BadInput(f"no such data: {data}")
    return values | {"source": values.get("source", {}) | {"path": str(data)}}


def render_preset(
    preset: str,
    values: dict[str, Any],
    encoders: str | None,
    changes: Mapping[str, Any] | None = None,
    header: str | None = None,
) -> str:
    """The complete parameter file.

    Args:
        preset: its name.
        values: of its file, with the path of the data.
        encoders: other ones than those that the preset names.
        changes: what differs from preset and encoders.
        header: comment lines at the beginning, instead of those of the preset.

    Raises:
        BadInput: the preset does not hold valid parameters, or there are no such encoders.
    """
    from cots.config.params import Params
    from cots.config.render import render

    named = values.get("encoders")
    values = {key: value for key, value in values.items() if key != "encoders"}
    lines = read_header(preset_file(preset))
    if start := encoders or named:
        lines += "".join(read_header(file) for file in _encoder_files(preset, start))
        values = _with_encoders(preset, values, start)
    return render(Params.parse(merge(values, changes or {}), preset_file(preset)), header or lines)


def render_presets(params: "Params") -> Iterator[str]:
    """What `cots init PRESET` would write from each preset, with any encoders, for the same data."""
    from cots.config.sections import read_yaml

    for preset in preset_names():
        values: dict[str, Any] = read_yaml(preset_file(preset))
        source = values.get("source", {}) | {"path": str(params.source.path)}
        start = params.model.init_from
        names = preset_names(ENCODERS)
        models = [start] if start and start not in map(start_of, names) else []
        for encoders in (None, *names, *models):
            with suppress(CotsError):  # a preset that is not valid cannot have been written
                yield render_preset(preset, values | {"source": source}, encoders)


def read_header(path: Path) -> str:
    """The comment lines at the beginning of a file."""
    lines = path.read_text(encoding="utf8").splitlines(keepends=True)
    return "".join(takewhile(lambda line: line.startswith("#"), lines))


def merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with changes; `options` of a model are replaced as a whole."""
    merged = dict(values)
    for key, change in changes.items():
        nested = isinstance(change, dict) and isinstance(merged.get(key), dict) and key != "options"
        merged[key] = merge(merged[key], change) if nested else change
    return merged


def _with_encoders(preset: str, values: dict[str, Any], encoders: str) -> dict[str, Any]:
    """A preset's values with some encoders; section `finetune` of these changes every run of the preset.

    Args:
        preset: its name; a file `ENCODERS.PRESET.yaml` says what changes for both together.
        values: of the preset.
        encoders: name of a file in presets/encoders, or a model: a folder, a file, a registered version or a name of
            the hub.

    Raises:
        BadInput: it is none of them.
    """
    from cots.config.sections import read_yaml

    if encoders in preset_names(ENCODERS):
        changes: dict[str, Any] = {}
        for file in _encoder_files(preset, encoders):
            changes = merge(changes, read_yaml(file))
    elif Path(encoders).expanduser().exists() or "/" in encoders:  # registered, or on the hub
        changes = _start_values(encoders)
    else:
        names = ", ".join(preset_names(ENCODERS))
        raise BadInput(f"no encoders {encoders!r}: give a model's folder, file or name, or one of {names}")
    if changes["model"].get("init_from"):
        changes = merge(read_yaml(bundled(INIT_FROM_RECIPE)), changes)
    run = changes.get("finetune", {}) | {"size": changes["model"]["image"]["size"]}
    targets = values.get("finetune", {"image-text": {}})
    changes = {name: section for name, section in changes.items() if name != "finetune"}
    return merge(values, changes) | {"finetune": {target: merge(tuned, run) for target, tuned in targets.items()}}


def start_of(encoders: str) -> str | None:
    """The model that `--encoders` names, as `model.init_from` has it; None if it names two encoders.

    Args:
        encoders: name of a file in presets/encoders, or a model.
    """
    from cots.config.sections import read_yaml

    if encoders in preset_names(ENCODERS):
        start: str | None = read_yaml(bundled(ENCODERS) / f"{encoders}.yaml")["model"].get("init_from")
        return start
    path = Path(encoders).expanduser()
    return str(path) if path.exists() else encoders


def require_two_towers(encoders: str) -> None:
    """Refuse two encoders that were never trained together.

    Args:
        encoders: name of a file in presets/encoders, or a model.

    Raises:
        BadInput: they are two.
    """
    if start_of(encoders) is None:
        starts = ", ".join(name for name in preset_names(ENCODERS) if start_of(name))
        raise BadInput(
            f"encoders {encoders} are two that were never trained together: before training, their vectors of images "
            f"and texts have nothing in common; give {starts}, or a trained model"
        )


def _encoder_files(preset: str, encoders: str) -> list[Path]:
    """The files of some encoders, first for every preset, then for this one; none for a model at a path."""
    folder = bundled(ENCODERS)
    files = (folder / f"{encoders}.yaml", folder / f"{encoders}.{preset}.yaml")
    return [file for file in files if file.is_file()]


@cache
def _start_values(start: str) -> dict[str, Any]:
    """What params.yaml says to start from a model.

    Args:
        start: see `load_encoders`; its images may be larger by a part of a patch.
    """
    from cots.tracking.loading import load_encoders

    image = load_encoders(start).config["image"]
    size = image["size"] // image["patch"] * image["patch"]
    model = {"init_from": start_of(start), "image": {"size": size, "patch": image["patch"]}}
    return {"prepare": {"size": image["size"]}, "model": model}
