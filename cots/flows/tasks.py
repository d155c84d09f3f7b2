"""Prefect tasks of the flows; each is one call of DVC or `cots`."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.client.schemas import State

from cots.config.params import Params
from cots.data.store_upkeep import require_objects
from cots.errors import RunFailed
from cots.flows.commands import CommandResult, backup_lock, run
from cots.registry.registry import Registry


async def is_retryable(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether to retry: a server or network may come back (`RunFailed`), invalid input stays invalid (`BadInput`)."""
    return isinstance(await state.aresult(raise_on_failure=False), RunFailed)


retryable = task(retries=3, retry_delay_seconds=[2, 10, 30], retry_condition_fn=is_retryable)


@task  # no retries: the file stays as it is
def check_params() -> None:
    """Check all of params.yaml; a stage checks only its own sections, possibly after hours of other stages."""
    Params.load()


@retryable
def pull() -> CommandResult:
    """Pull data and cached results from the DVC remote; before the first push there are none."""
    return run("dvc", "pull", "--run-cache", "--allow-missing")


@task(task_run_name="repro {stage}")  # no retries: a failed stage would fail again
def repro(stage: str) -> CommandResult:
    """Bring a stage and everything it depends on up to date, from objects that are all there."""
    require_objects(Path())
    result = run("dvc", "repro", stage)
    backup_lock()
    return result


@task(task_run_name="repro {stage} alone")
def repro_alone(stage: str) -> CommandResult:
    """Bring a stage up to date without updating its dependencies first, from objects that are all there."""
    require_objects(Path())
    result = run("dvc", "repro", "--single-item", stage)
    backup_lock()
    return result


@retryable
def publish() -> CommandResult:
    """Register the package, once per content; the gate decides whether it is deployed."""
    return run("cots", "registry", "publish")


@retryable
def needs_validation() -> bool:
    """Whether the deployed encoders have learnt from the project's data."""
    return Registry().needs_validation()


@retryable
def refresh() -> CommandResult:
    """Register an index of the current images, built by the deployed encoders."""
    return run("cots", "registry", "refresh")


@retryable
def push() -> CommandResult:
    """Push results to the DVC remote for other machines."""
    return run("dvc", "push", "--run-cache")


@retryable
def promote_version(version: int, reason: str) -> bool:
    """Deploy a version; False if it was deployed already."""
    return Registry().promote(version, why=reason)


@task  # no retries: if only the answer was lost, a second swap would undo the first
def roll_back(reason: str) -> int:
    """Swap the champion with the previous version; return the new champion."""
    return Registry().rollback(why=reason)
