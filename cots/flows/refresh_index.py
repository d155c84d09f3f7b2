"""Flow `refresh_index`: indexes new images with the deployed encoders, without training (minutes, not hours)."""

from typing import Any

from prefect import flow
from prefect.client.schemas import State
from prefect.runtime import flow_run
from prefect.states import Completed

from cots.exclusive_run import exclusive_run
from cots.flows.commands import has_remote, list_stale_stages
from cots.flows.late_runs import skip_late_run
from cots.flows.limits import time_limit
from cots.flows.retrain_report import report_run
from cots.flows.tasks import needs_validation, pull, refresh, repro_alone

STAGES = ("prepare", "validate")  # run on new data before it is indexed


@flow
def refresh_index(hours: float | None = None) -> State[Any]:
    """Index the current images with the deployed encoders; `hours` limits the run time."""
    if skipped := skip_late_run():
        return skipped
    with exclusive_run(flow_run.name), report_run("refresh-index") as report, time_limit(hours):
        if has_remote():
            pull()
        report.stale = [stage for stage in list_stale_stages() if stage in STAGES]
        report.add("prepare", repro_alone("prepare"))
        if needs_validation():
            report.add("validate", repro_alone("validate"))
        report.add_publish(refresh())
    return Completed(message=report.outcome)


if __name__ == "__main__":
    refresh_index()
