"""Presets and encoders of `cots init`: turns their names into the text of a complete parameter file."""

from collections.abc import Mapping
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
DRAWN = ("scenes", "documents")  # presets whose data are drawn from a file of this package
PACKAGE = Path(cots.__file__).parent


def bundled(name: str) -> Path:
    """A file or folder that comes with this package; in a checkout, the checkout's own.

    Args:
        name: path in a checkout, such as `presets`.
    """
    if Path(ENCODERS).is_dir() and Path(name).exists():
        return Path(name)
    in_wheel = PACKAGE / "project"  # where pyproject.toml puts such files
    return (in_wheel if in_wheel.is_dir() else PACKAGE.parent) / name


def preset_names(folder: str = PRESETS) -> list[str]:
    """Names of the presets, or of the encoders in `ENCODERS`."""
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
    """A preset's values, with the path of the data as `source.path`.

    Raises:
        BadInput: there is no such preset or no such data.
    """
    from cots.config.sections import read_yaml

    values: dict[str, Any] = read_yaml(preset_file(preset))
    if data is None:
        if preset not in DRAWN:
            raise BadInput(f"preset {preset} needs --data PATH: where its images and captions are")
        if Path(PRESETS).is_dir():  # in a checkout the preset's own path is right
            return values
        data = PACKAGE / f"data/{preset}.yaml"
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
        preset: name of the preset.
        values: its values, with the path of the data.
        encoders: encoders to take instead of the preset's.
        changes: values that differ from those of preset and encoders.
        header: comment lines to begin with instead of those of preset and encoders.

    Raises:
        BadInput: the parameters are not valid, or there are no such encoders.
    """
    from cots.config.params import Params
    from cots.config.render import render

    chosen = encoders or values.get("encoders")
    values = {key: value for key, value in values.items() if key != "encoders"}
    if chosen:
        values = _with_encoders(preset, values, chosen)
    params = Params.parse(merge(values, changes or {}), preset_file(preset))
    return render(params, header or _headers(preset, chosen))


def is_preset(text: str, params: "Params") -> bool:
    """Whether `cots init PRESET` would write this text for the data of `params`, from any preset with any encoders."""
    from cots.config.sections import read_yaml

    start, names = params.model.init_from, preset_names(ENCODERS)
    models = [start] if start and start not in map(start_of, names) else []
    for preset in preset_names():
        values: dict[str, Any] = read_yaml(preset_file(preset))
        values["source"] = values.get("source", {}) | {"path": str(params.source.path)}
        for encoders in (None, *names, *models):
            if text.startswith(_headers(preset, encoders or values.get("encoders")).rstrip("\n")):
                with suppress(CotsError):  # what is not valid cannot have been written
                    if render_preset(preset, values, encoders) == text:
                        return True
    return False


def read_header(path: Path) -> str:
    """The comment lines at the beginning of a file."""
    lines = path.read_text(encoding="utf8").splitlines(keepends=True)
    return "".join(takewhile(lambda line: line.startswith("#"), lines))


def _headers(preset: str, encoders: str | None) -> str:
    files = [preset_file(preset), *(_encoder_files(preset, encoders) if encoders else ())]
    return "".join(map(read_header, files))


def merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Apply changes to nested values; a model's `options` are replaced as a whole."""
    merged = dict(values)
    for key, change in changes.items():
        nested = isinstance(change, dict) and isinstance(merged.get(key), dict) and key != "options"
        merged[key] = merge(merged[key], change) if nested else change
    return merged


def _with_encoders(preset: str, values: dict[str, Any], encoders: str) -> dict[str, Any]:
    """A preset's values with other encoders; their section `finetune` applies to every target of the preset.

    Args:
        preset: name of the preset; a file `ENCODERS.PRESET.yaml` holds what the encoders change in this preset alone.
        values: its values.
        encoders: name of a file in presets/encoders, or a model: a folder, a file, a registered version or a name of
            the hub.

    Raises:
        BadInput: there are no such encoders.
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
    return merge(values, changes) | {"finetune": {target: merge(section, run) for target, section in targets.items()}}


def start_of(encoders: str) -> str | None:
    """The value of `model.init_from` for `--encoders`; None if these are two encoders that were never trained together.

    Args:
        encoders: name of a file in presets/encoders, or a model.
    """
    from cots.config.sections import read_yaml

    if encoders in preset_names(ENCODERS):
        start: str | None = read_yaml(bundled(ENCODERS) / f"{encoders}.yaml")["model"].get("init_from")
        return start
    path = Path(encoders).expanduser()
    return str(path) if path.exists() else encoders


def require_trained_together(encoders: str) -> None:
    """Check that encoders can search without training, because they were trained together.

    Args:
        encoders: name of a file in presets/encoders, or a model.

    Raises:
        BadInput: they were not.
    """
    if start_of(encoders) is None:
        starts = ", ".join(name for name in preset_names(ENCODERS) if start_of(name))
        raise BadInput(
            f"the encoders {encoders} were never trained together: before training, their vectors of images and texts "
            f"have nothing in common; give {starts}, or a trained model"
        )


def _encoder_files(preset: str, encoders: str) -> list[Path]:
    """The files of named encoders, first for every preset, then for this one; none for a model."""
    folder = bundled(ENCODERS)
    files = (folder / f"{encoders}.yaml", folder / f"{encoders}.{preset}.yaml")
    return [file for file in files if file.is_file()]


@cache
def _start_values(start: str) -> dict[str, Any]:
    """The parameters of a run that starts from a model.

    Args:
        start: as for `load_encoders`. If its image size is no multiple of the patch, runs take the next smaller one.
    """
    from cots.tracking.loading import load_encoders

    image = load_encoders(start).config["image"]
    size = image["size"] // image["patch"] * image["patch"]
    model = {"init_from": start_of(start), "image": {"size": size, "patch": image["patch"]}}
    return {"prepare": {"size": image["size"]}, "model": model}
