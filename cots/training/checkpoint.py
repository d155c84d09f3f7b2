"""Checkpoints: the whole state of an unfinished run, with the fingerprint of the run.

A run is unfinished until everything that it writes is on disk and logged: its last step is saved too, and the stage
removes the checkpoint at its very end. If the shards are kept in a store, so is the checkpoint; a small record stays in
`FOLDER`. A file beside the record is newer: the store could not be reached when it was written.
"""

import logging
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from cots.data.store import follow_store, open_part, remove_part, replace_part
from cots.distributed import all_gather_object, broadcast_object, rank
from cots.errors import BadInput
from cots.files import atomic_file

log = logging.getLogger(__name__)

FOLDER = Path("runs/checkpoints")

# Names in the objective's state as of release 0.1, whose unfinished runs can be resumed.
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
OWNERS = ("image_slow.", "text_slow.", "queue.", "noise_filter.")  # modules of the objective that had these names


def path_of(name: str) -> Path:
    """The checkpoint file of the run `name`."""
    return FOLDER / f"{name}.pt"


def follow_shards(shards: Path) -> None:
    """Keep checkpoints where the shards are; checkpoints that have lain elsewhere are forgotten."""
    follow_store(FOLDER, of=shards)


def is_due(step: int, *, every: int, steps: int) -> bool:
    """Whether the state after a step (from 0) is saved: every few steps, and after the last one."""
    return (step + 1) % every == 0 or step + 1 == steps


def save(path: Path, state: dict[str, Any], *, fingerprint: str) -> None:
    """Write a checkpoint atomically: a killed run leaves the last complete one, and so does a store that is away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, durable=True) as partial, partial.open("wb") as file:  # torch hides why a path is refused
        torch.save({"fingerprint": fingerprint, "state": state}, file)
    replace_part(path)


def load(path: Path, *, fingerprint: str) -> dict[str, Any] | None:
    """The state of an unfinished run, or None if there is no checkpoint with this fingerprint.

    Args:
        path: the file.
        fingerprint: digest of parameters and inputs. A checkpoint with another one is logged and ignored.

    Raises:
        BadInput: the file is damaged, or the object that holds it is missing or changed.
    """
    try:
        with open_part(path) as file:
            saved = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except (RuntimeError, UnpicklingError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path} is damaged: delete it to train from the beginning ({reason})") from None
    if saved["fingerprint"] != fingerprint:
        log.info("%s belongs to other parameters or data: starting from the beginning", path)
        return None
    state: dict[str, Any] = saved["state"]
    if "objective" in state:
        state["objective"] = {_current_name(name): value for name, value in state["objective"].items()}
    return state


def load_agreed(path: Path, *, fingerprint: str) -> dict[str, Any] | None:
    """Rank 0's unfinished run, on every rank: machines without a shared folder may hold different checkpoints.

    Args:
        path: of this rank's checkpoint; fingerprint: digest of this rank's parameters and inputs.

    Raises:
        BadInput: the file is damaged, or the ranks have different parameters, weights or data.
    """
    state = load(path, fingerprint=fingerprint)
    runs = all_gather_object((fingerprint, state["step"] if state else 0))
    others = [str(number) for number, (digest, _) in enumerate(runs) if digest != runs[0][0]]
    if others:
        raise BadInput(
            f"process {', '.join(others)} of {len(runs)} has other parameters, start weights or data than process 0: "
            "copy params.yaml, data/ and models/ from its machine"
        )
    steps = [step for _, step in runs]
    if len({*steps}) == 1:
        return state
    if rank() == 0:
        log.warning("checkpoints differ (steps %s by process): all go on from step %d", steps, steps[0])
    return broadcast_object(state)


def remove(name: str) -> None:
    """Remove the checkpoint of a run that is finished."""
    remove_part(path_of(name))


def _current_name(name: str) -> str:
    """Today's name of a tensor of the objective that release 0.1 may have named otherwise."""
    if not name.startswith(OWNERS):
        return name
    owner, _, inner = name.partition(".")
    return f"{RENAMED.get(owner, owner)}.{RENAMED.get(inner, inner)}"
