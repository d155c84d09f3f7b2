"""Checkpoints: everything that a run needs to go on as if it had never stopped, and whose run it is."""

import logging
from pathlib import Path
from typing import Any

import torch

from cots.files import atomic_file

log = logging.getLogger(__name__)

# Names in the objective's state of release 0.1, whose unfinished runs go on.
RENAMED = {
    "image_slow": "image_m",
    "text_slow": "text_m",
    "features_image": "image_queue",
    "features_text": "text_queue",
    "owners": "sample_ids",
    "cursor": "ptr",
    "first": "ema_mean",
    "second": "ema_square",
}
OWNERS = ("image_slow.", "text_slow.", "queue.", "noise_filter.")  # whose names these are


def save(path: Path, state: dict[str, Any], *, fingerprint: str) -> None:
    """Write a checkpoint; a killed run leaves the last whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, durable=True) as aside:
        torch.save({"fingerprint": fingerprint, "state": state}, aside)


def load(path: Path, *, fingerprint: str) -> dict[str, Any] | None:
    """The state of an unfinished run, or None where there is none of this fingerprint.

    Args:
        path: the file.
        fingerprint: digest of parameters and inputs. Another run's checkpoint is of no use: it is left behind, and
            the log says so.
    """
    if not path.is_file():
        return None
    found = torch.load(path, map_location="cpu", weights_only=True)
    if found["fingerprint"] != fingerprint:
        log.info("%s belongs to other parameters or data: starting anew", path)
        return None
    state: dict[str, Any] = found["state"]
    if "objective" in state:
        state["objective"] = {_present_name(name): value for name, value in state["objective"].items()}
    return state


def _present_name(name: str) -> str:
    """The name of a tensor of the objective, which release 0.1 may have given another."""
    if not name.startswith(OWNERS):
        return name
    owner, _, inner = name.partition(".")
    return f"{RENAMED.get(owner, owner)}.{RENAMED.get(inner, inner)}"
