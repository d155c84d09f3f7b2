"""Flow `check_drift`: compares queries and new samples with the champion's training data; can start retraining."""

import json
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas import State
from prefect.deployments import run_deployment

from cots.file_names import DRIFT_SUMMARY_PATH
from cots.flows.alerts import DRIFTED, report_event
from cots.flows.commands import run
from cots.flows.late_runs import skip_late_run
from cots.flows.markdown import table
from cots.markdown import escape_markdown

RETRAIN = "retrain/nightly"


@task
def compute_drift(queries: str | None) -> dict[str, Any]:
    """Run `cots drift` and return its summary; `queries` is the folder of the service's query log, if any."""
    run("cots", "drift", "--out", str(DRIFT_SUMMARY_PATH), *(["--queries", queries] if queries else []))
    summary: dict[str, Any] = json.loads(DRIFT_SUMMARY_PATH.read_text(encoding="utf8"))
    return summary


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def create_artifact(summary: dict[str, Any]) -> None:
    """Create a Prefect artifact with the result of every check and the checks that were skipped."""
    create_markdown_artifact(
        to_markdown(summary), key="drift", description="Queries and new samples against the champion"
    )


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def start_retraining() -> None:
    """Start the retraining deployment without waiting for it."""
    run_deployment(RETRAIN, timeout=0, as_subflow=False)


@flow
def check_drift(queries: str | None = None, retrain: bool = False) -> bool | State[Any]:
    """Compare queries and new samples with the champion's training data; on drift, retrain if `retrain` is set."""
    if skipped := skip_late_run():
        return skipped
    summary = compute_drift(queries)
    create_artifact(summary)
    if summary["drifted"]:
        failed = [f"{check['of']}: {check['expectation']}" for check in summary["checks"] if not check["success"]]
        report_event(DRIFTED, "; ".join(failed))
        if retrain:
            start_retraining()
    return bool(summary["drifted"])


def to_markdown(summary: dict[str, Any]) -> str:
    """Render the summary as a table of checks, with failed checks in bold, and a list of skipped checks."""
    rows = [
        (
            check["of"],
            check["expectation"],
            "yes" if check["success"] else "**no**",
            escape_markdown(check["observed"]),
            check["limit"],
        )
        for check in summary["checks"]
    ]
    skipped = [f"- {subject}: not judged, {reason}" for subject, reason in summary["not judged"].items()]
    checks = table(("data", "check", "passed", "observed", "limit"), rows)
    return "\n".join([f"Drifted: **{'yes' if summary['drifted'] else 'no'}**", "", checks, "", *skipped])


if __name__ == "__main__":
    check_drift()
