"""Nested values by dotted name, as for MLflow."""

from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of nested dicts by dotted name: `{"mask": {"image": 0.4}}` becomes `{"mask.image": 0.4}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": leaf for name, leaf in flatten(value).items()}
        else:
            flat[key] = value
    return flat
