"""The page that a flow run of `retrain` leaves in Prefect."""

from datetime import UTC, datetime

import pytest

from cots.flows.commands import CommandResult
from cots.flows.retrain_report import DECISION, RetrainReport
from cots.registry.versions import VersionInfo


def version(number: int, queries: str, rsum: float, **tags: str) -> VersionInfo:
    aliases = ("champion",) if number == 1 else ()
    measured = {"queries.digest": queries, "metrics.rsum": str(rsum)}
    return VersionInfo(number, number, aliases, datetime(2026, 1, number, tzinfo=UTC), measured | tags)


@pytest.mark.parametrize(
    ("queries", "header", "row"),
    [
        ("a", "| metric | this version | version 1 | difference |", "| rsum | 300.0 | 240.0 | +60.000 |"),
        ("b", "| metric | this version | version 1, on other test queries | difference |", "| rsum | 300.0 | - | - |"),
    ],
)
def test_figures_are_compared_only_on_the_same_test_queries(queries: str, header: str, row: str) -> None:
    new = version(2, queries, 300.0, **{DECISION: "better"})
    report = RetrainReport([version(1, "a", 240.0)], [version(1, "a", 240.0), new])
    report.add("publish", CommandResult(1.0, ("better",)))
    page = report.to_markdown()
    assert header in page
    assert row in page
