"""Keys of `params.yaml` that had another name: the one table of them, read in both directions.

Files and registered versions of before are read under the present names. Fingerprints are taken under the first names,
so that a checkpoint half way through a run outlives a renaming.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from cots.config_base import Config

_RUN = {
    "batch": "batch_size",
    "parts": "grad_accum_steps",
    "warmup": "warmup_steps",
    "checkpoint_gradients": "gradient_checkpointing",
    "shard_weights": "fsdp",
    "compile_blocks": "torch_compile",
}
_OBJECTIVE = {
    "weights": "loss_weights",
    "batch_negatives": "in_batch_negatives",
    "queue": "queue_size",
    "queue_warmup": "queue_warmup_steps",
    "keep": "save",
}
_TEMPERATURE = {"start": "init", "learned": "learnable", "least": "min"}
_FILTER = {"warmup": "warmup_steps", "deviations": "num_std"}
_MASK = {"image": "patch_ratio", "block": "min_block", "text": "mlm_probability"}

RENAMED: dict[str, dict[str, str]] = {  # path of a mapping in the file: first name of a key, present name
    "source": {
        "pictures": "images",
        "clips": "videos",
        "clip_frames": "video_frames",
        "wrong_captions": "caption_noise",
    },
    "prepare": {"frames": "max_frames"},
    "dvae": {"codes": "codebook_size", "hidden": "width", "batch": "batch_size"},
    "tokenize": {"views": "crops_per_image", "batch": "batch_size"},
    **{
        f"{run}{path}": keys
        for run in ("pretrain", "finetune.*")
        for path, keys in {
            "": _RUN,
            ".objective": _OBJECTIVE,
            ".objective.temperature": _TEMPERATURE,
            ".objective.filter": _FILTER,
            ".objective.mask": _MASK,
        }.items()
    },
    "evaluate": {"batch": "batch_size", "galleries": "num_examples", "bootstrap": "bootstrap_resamples"},
    "index": {
        "kind": "factory",
        "recall": "target_recall",
        "max_gb": "max_memory_gb",
        "preview": "thumbnail_size",
    },
    "gate": {
        "better": "must_improve",
        "margin": "non_inferiority_margin",
        "max_fall": "max_champion_drop",
        "max_ms": "max_latency_ms",
        "resamples": "bootstrap_resamples",
    },
    "drift": {
        "newest": "max_queries",
        "least": "min_rows",
        "sample": "max_rows",
        "p": "alpha",
        "mmd": "min_mmd2",
        "max_unknown": "max_oov",
    },
}
RENAMED_VALUES = {  # present name of a renamed key: its first values, present values
    "in_batch_negatives": {"keys": "momentum", "queries": "online"},
    "save": {"trained": "online", "momentum": "ema"},
}
_FIRST = {path: {new: old for old, new in keys.items()} for path, keys in RENAMED.items()}


def present_names(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A file's plain values under the present names.

    A first name beside the present one is left as it is: validation refuses it as unknown.
    """
    here, result = RENAMED.get(path, {}), dict[str, Any]()
    for key, value in values.items():
        name = here.get(key, key)
        if name != key and name not in values:
            result[name] = _renamed_value(RENAMED_VALUES.get(name, {}), value)
        else:
            result[key] = present_names(value, _below(path, key)) if isinstance(value, Mapping) else value
    return result


def first_names_used(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Paths of the first names in a file's plain values, with the present ones; `finetune.*` for every target."""
    for key, value in values.items():
        if name := RENAMED.get(path, {}).get(key):
            yield f"{path}.{key}", f"{path}.{name}"
        elif isinstance(value, Mapping):
            yield from first_names_used(value, _below(path, key))


def dump_for_fingerprint(section: Config, path: str) -> dict[str, Any]:
    """Plain values of a section under the first names, without later keys that have their default.

    Renaming a key, or adding one, leaves the fingerprint of a run as it was.

    Args:
        section: any part of the file; path: where it stands, such as `pretrain` or `finetune.*`.
    """
    return _first_names(_without_later_defaults(section), path)


def _first_names(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    here, result = _FIRST.get(path, {}), dict[str, Any]()
    for key, value in values.items():
        if key in here:
            first_values = {new: old for old, new in RENAMED_VALUES.get(key, {}).items()}
            result[here[key]] = _renamed_value(first_values, value)
        else:
            result[key] = _first_names(value, _below(path, key)) if isinstance(value, Mapping) else value
    return result


def _without_later_defaults(section: Config) -> dict[str, Any]:
    dumped = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value, extra = getattr(section, name), field.json_schema_extra
        if isinstance(extra, dict) and "since" in extra and value == field.default:
            dumped.pop(name, None)
        elif isinstance(value, Config):
            dumped[name] = _without_later_defaults(value)
    return dumped


def _renamed_value(names: Mapping[str, str], value: Any) -> Any:  # noqa: ANN401  YAML
    return names.get(value, value) if isinstance(value, str) else value


def _below(path: str, key: str) -> str:
    return "finetune.*" if path == "finetune" else f"{path}.{key}".removeprefix(".")
