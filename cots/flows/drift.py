"""Monitoring: is what comes in still what the deployed version learnt from? If not, retraining can be asked for."""

import json
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.deployments import run_deployment

from cots.flows.commands import run
from cots.flows.markdown import table

SUMMARY = Path("reports/drift/summary.json")
RETRAIN = "retrain/nightly"


@task
def drift(queries: str | None) -> dict[str, Any]:
    """What `cots drift` finds; `queries` is the folder of the service's log, if there is one."""
    run("cots", "drift", "--out", str(SUMMARY), *(["--queries", queries] if queries else []))
    found: dict[str, Any] = json.loads(SUMMARY.read_text(encoding="utf8"))
    return found


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def tell(found: dict[str, Any]) -> None:
    """Leave an artifact on the server: whether anything drifted, each check, what was not judged."""
    create_markdown_artifact(
        as_markdown(found), key="drift", description="Queries and new samples against the champion"
    )


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def ask_for_retraining() -> None:
    """Start the deployment that retrains, and do not wait for it."""
    run_deployment(RETRAIN, timeout=0, as_subflow=False)


@flow
def check_drift(queries: str | None = None, retrain: bool = False) -> bool:
    """Compare queries and new samples with what the champion learnt from; on drift, retrain where that is wanted."""
    found = drift(queries)
    tell(found)
    if found["drifted"] and retrain:
        ask_for_retraining()
    return bool(found["drifted"])


def as_markdown(found: dict[str, Any]) -> str:
    """The summary for people: a table of the checks, those that do not hold in bold."""
    rows = [
        (check["of"], check["expectation"], "yes" if check["success"] else "**no**", check["observed"], check["limit"])
        for check in found["checks"]
    ]
    unjudged = [f"- {of}: not judged, {why}" for of, why in found["not judged"].items()]
    checks = table(("what", "expected", "held", "observed", "limit"), rows)
    return "\n".join([f"Drifted: **{'yes' if found['drifted'] else 'no'}**", "", checks, "", *unjudged])


if __name__ == "__main__":
    check_drift()
