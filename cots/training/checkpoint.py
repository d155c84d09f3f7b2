"""Checkpoints: everything that a run needs to go on as if it had never stopped, and whose run it is."""

import logging
from pathlib import Path
from typing import Any

import torch

from cots.files import atomic_file

log = logging.getLogger(__name__)


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
    return state
