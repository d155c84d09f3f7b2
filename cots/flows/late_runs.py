"""After a time without a worker, only the newest of the scheduled runs that are due does its work."""

from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas import State
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.types import DateTime


def skip_late_run() -> State[Any] | None:
    """The state in which the current run ends if a later run of its schedule is due too; otherwise None."""
    if flow_run.id is None or not is_superseded(UUID(flow_run.id)):
        return None
    return Completed(name="Skipped", message="skipped: a later scheduled run is due, which does the same")


def is_superseded(run_id: UUID) -> bool:
    """Whether a run was started by a schedule of which a later run is due and has not begun."""
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        if not run.auto_scheduled or run.deployment_id is None or run.expected_start_time is None:
            return False
        waiting = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING])),
                expected_start_time=FlowRunFilterExpectedStartTime(
                    after_=run.expected_start_time, before_=DateTime.now("UTC")
                ),
            )
        )
    return any(other.auto_scheduled and other.id != run_id for other in waiting)
