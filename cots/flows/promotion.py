"""Deploying a version by hand, and going back: moves of an alias, kept in the registry's history."""

from typing import Any

from prefect import flow
from prefect.client.schemas import State
from prefect.states import Completed

from cots.flows.tasks import promote_version, roll_back
from cots.registry.client import INDEX


@flow
def promote(version: int, reason: str) -> State[Any]:
    """Deploy a version of the index, whatever the gate said of it."""
    moved = promote_version(version, reason)
    return Completed(message=f"{INDEX} version {version} is the champion" + ("" if moved else " already"))


@flow
def rollback(reason: str) -> State[Any]:
    """Go back to the version that was deployed before."""
    return Completed(message=f"{INDEX} version {roll_back(reason)} is the champion")
