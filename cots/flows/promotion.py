"""Flows `promote` and `rollback`: manual changes of the champion, recorded in the registry's history."""

from typing import Any

from prefect import flow
from prefect.client.schemas import State
from prefect.states import Completed

from cots.flows.tasks import promote_version, roll_back
from cots.registry.client import INDEX


@flow
def promote(version: int, reason: str) -> State[Any]:
    """Deploy a version of the index, whatever the gate decided."""
    promoted = promote_version(version, reason)
    return Completed(message=f"{INDEX} version {version} is the champion" + ("" if promoted else " already"))


@flow
def rollback(reason: str) -> State[Any]:
    """Deploy the previous version again."""
    return Completed(message=f"{INDEX} version {roll_back(reason)} is the champion")
