"""The steps of the flows: each one call into DVC or `cots`."""

from typing import Any

from prefect import task
from prefect.client.schemas import State

from cots.errors import RunFailed
from cots.flows.commands import CommandResult, backup_lock, run
from cots.registry.registry import Registry


async def is_retryable(_task: object, _run: object, state: State[Any]) -> bool:
    """A server or a network that is down may come back; input that is wrong stays wrong."""
    return isinstance(await state.aresult(raise_on_failure=False), RunFailed)


retryable = task(retries=3, retry_delay_seconds=[2, 10, 30], retry_condition_fn=is_retryable)


@retryable
def pull() -> CommandResult:
    """Fetch data and what other machines have made of it; the first run finds nothing."""
    return run("dvc", "pull", "--run-cache", "--allow-missing")


@task(task_run_name="repro {stage}")  # no retries: a stage that failed would fail again
def repro(stage: str) -> CommandResult:
    """Bring a stage and everything it needs up to date."""
    ended = run("dvc", "repro", stage)
    backup_lock()
    return ended


@task(task_run_name="repro {stage} alone")
def repro_alone(stage: str) -> CommandResult:
    """Bring a stage up to date, whatever it needs is."""
    ended = run("dvc", "repro", "--single-item", stage)
    backup_lock()
    return ended


@retryable
def publish() -> CommandResult:
    """Register the package, once for each content; the gate decides whether it is deployed."""
    return run("cots", "registry", "publish")


@retryable
def refresh() -> CommandResult:
    """Register an index of the current pictures, made by the encoders that are deployed."""
    return run("cots", "registry", "refresh")


@retryable
def push() -> CommandResult:
    """Keep what was made where other machines find it."""
    return run("dvc", "push", "--run-cache")


@retryable
def promote_version(version: int, reason: str) -> bool:
    """Deploy a version; False where it was deployed already."""
    return Registry().promote(version, why=reason)


@task  # no retries: a second exchange would undo the first, whose answer was lost
def roll_back(reason: str) -> int:
    """Exchange the deployed version with the one before; the version that is deployed now."""
    return Registry().rollback(why=reason)
