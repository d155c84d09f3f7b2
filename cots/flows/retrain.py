"""Flow `retrain`: runs the stale DVC stages and publishes the resulting package."""

from typing import Any

from prefect import flow
from prefect.client.schemas import State
from prefect.runtime import flow_run
from prefect.states import Completed

from cots.exclusive_run import exclusive_run
from cots.flows.commands import has_remote, list_stages, list_stale_stages
from cots.flows.late_runs import skip_late_run
from cots.flows.limits import time_limit
from cots.flows.parent_run import parent_run
from cots.flows.retrain_report import RetrainReport, report_run
from cots.flows.tasks import check_params, publish, pull, push, repro


@flow
def retrain(hours: float | None = None) -> State[Any]:
    """Train on the current data and deploy the result if the gate accepts it; `hours` limits the run time."""
    if skipped := skip_late_run():
        return skipped
    with exclusive_run(flow_run.name), report_run("retrain") as report, time_limit(hours):
        check_params()
        use_remote = has_remote()
        if use_remote:
            pull()
        report.stale = list_stale_stages()
        if report.stale:
            bring_up_to_date(report)
        report.add_publish(publish())
        if use_remote:
            push()
    return Completed(message=report.outcome)


def bring_up_to_date(report: RetrainReport) -> None:
    """Run every stage in turn under one MLflow run; a stage that is up to date takes about a second."""
    with parent_run(flow_run.name):
        for stage in list_stages():
            report.add(stage, repro(stage))


if __name__ == "__main__":
    retrain()
