"""New pictures in the index without new training: minutes, not hours."""

from typing import Any

from prefect import flow
from prefect.client.schemas import State
from prefect.runtime import flow_run
from prefect.states import Completed

from cots.flows.commands import has_remote, stale_stages
from cots.flows.exclusive_run import exclusive_run
from cots.flows.limits import time_limit
from cots.flows.retrain_report import report_run
from cots.flows.tasks import pull, refresh, repro_alone

STAGES = ("prepare", "validate")  # what pictures pass on their way in


@flow
def refresh_index(hours: float | None = None) -> State[Any]:
    """Let the deployed encoders index the pictures that are there now; at most so many hours, if given."""
    with exclusive_run(flow_run.name), report_run("refresh-index") as report, time_limit(hours):
        if has_remote():
            pull()
        report.stale = [stage for stage in stale_stages() if stage in STAGES]
        for stage in STAGES:
            report.add(stage, repro_alone(stage))
        report.conclude(refresh())
    return Completed(message=report.outcome)


if __name__ == "__main__":
    refresh_index()
