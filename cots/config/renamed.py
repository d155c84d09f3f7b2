"""The table of renamed keys of `params.yaml`, used in both directions.

Older files and registered versions are read under the current names. Fingerprints are computed under the old names, so
that a checkpoint of an unfinished run stays valid after a renaming.
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

RENAMED: dict[str, dict[str, str]] = {  # path of a mapping in the file: old name of a key, current name
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
RENAMED_VALUES = {  # current name of a renamed key: its old values, current values
    "in_batch_negatives": {"keys": "momentum", "queries": "online"},
    "save": {"trained": "online", "momentum": "ema"},
}
_OLD_NAMES = {path: {new: old for old, new in keys.items()} for path, keys in RENAMED.items()}


def rename_keys(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A file's plain values under the current names.

    If a key is there under both names, the old one is left as it is; validation refuses it as unknown.
    """
    current_names, result = RENAMED.get(path, {}), dict[str, Any]()
    for key, value in values.items():
        name = current_names.get(key, key)
        if name != key and name not in values:
            result[name] = _rename_value(RENAMED_VALUES.get(name, {}), value)
        else:
            result[key] = rename_keys(value, _join(path, key)) if isinstance(value, Mapping) else value
    return result


def find_old_names(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Paths of keys with old names in a file's plain values, and their current paths; `finetune.*` for each target."""
    for key, value in values.items():
        if name := RENAMED.get(path, {}).get(key):
            yield f"{path}.{key}", f"{path}.{name}"
        elif isinstance(value, Mapping):
            yield from find_old_names(value, _join(path, key))


def dump_for_fingerprint(section: Config, path: str) -> dict[str, Any]:
    """Plain values of a section under the old names, without keys added later that have their default.

    Renaming a key, or adding one, does not change the fingerprint of a run.

    Args:
        section: any mapping of the file.
        path: of the mapping, such as `pretrain` or `finetune.*`.
    """
    return _restore_old_names(_dump_without_later_defaults(section), path)


def _restore_old_names(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    old_names, result = _OLD_NAMES.get(path, {}), dict[str, Any]()
    for key, value in values.items():
        if key in old_names:
            old_values = {new: old for old, new in RENAMED_VALUES.get(key, {}).items()}
            result[old_names[key]] = _rename_value(old_values, value)
        else:
            result[key] = _restore_old_names(value, _join(path, key)) if isinstance(value, Mapping) else value
    return result


def _dump_without_later_defaults(section: Config) -> dict[str, Any]:
    dumped = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value, extra = getattr(section, name), field.json_schema_extra
        if isinstance(extra, dict) and "since" in extra and value == field.default:
            dumped.pop(name, None)
        elif isinstance(value, Config):
            dumped[name] = _dump_without_later_defaults(value)
    return dumped


def _rename_value(names: Mapping[str, str], value: Any) -> Any:  # noqa: ANN401  YAML
    return names.get(value, value) if isinstance(value, str) else value


def _join(path: str, key: str) -> str:
    return "finetune.*" if path == "finetune" else f"{path}.{key}".removeprefix(".")
