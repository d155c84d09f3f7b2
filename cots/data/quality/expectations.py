"""Checks of the data by Great Expectations, with suites written in code."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read by the next import

import great_expectations as gx
import pandas as pd
from great_expectations import expectations as gxe
from great_expectations.checkpoint import UpdateDataDocsAction
from great_expectations.data_context.types.base import ProgressBarsConfig

from cots.data.quality.findings import Finding
from cots.data.quality.tally import MAX_EXAMPLES

SITE = "docs"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """Result of one expectation, in words.

    Attributes:
        expectation: what is expected.
        observed: how many values fail, and some of them.
        limit: what is allowed.
    """

    expectation: str
    success: bool
    observed: str
    limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The range in which the numbers of a column should lie.

    Attributes:
        title: what is expected, in words; unique in its suite.
        column: of numbers.
        low: smallest allowed value.
        high: largest allowed value.
        share: fraction of the rows that must lie in the range, in (0, 1]; None if the column's mean must.
    """

    title: str
    column: str
    low: float
    high: float
    share: float | None


def check_bounds(table: pd.DataFrame, bounds: Sequence[Bound]) -> list[CheckResult]:
    """Check a table: one result per bound, in their order.

    Args:
        table: has at least one row, and every column that a bound names.
        bounds: each with a title of its own.
    """
    return _run(_create_context(), "table", table, [_expect_within(bound) for bound in bounds], actions=[])


def judge(findings: Sequence[Finding], docs: Path) -> list[CheckResult]:
    """Judge counts and write the Data Docs: one result per finding, in their order.

    Args:
        findings: each with a title of its own.
        docs: folder of the Data Docs; they contain the time, so they cannot be hashed.
    """
    context = _create_context()
    context.add_data_docs_site(SITE, _docs_site(docs))
    shares = pd.DataFrame({finding.title: [finding.share] for finding in findings})
    actions = [UpdateDataDocsAction(name=SITE, site_names=[SITE])]
    return _run(context, "data", shares, [_expect_few(finding) for finding in findings], actions)


def _create_context() -> Any:  # noqa: ANN401 GE ships no types
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _expect(kind: type[Any], title: str, limit: str, **arguments: object) -> Any:  # noqa: ANN401 GE ships no types
    return kind(**arguments, meta={"title": title, "limit": limit}, notes=title)


def _expect_few(finding: Finding) -> Any:  # noqa: ANN401
    meta = {"title": finding.title, "limit": finding.limit, "observed": finding.observed}
    notes = f"{finding.title} ({finding.limit}): {finding.observed}"
    return gxe.ExpectColumnMaxToBeBetween(column=finding.title, max_value=finding.max_share, meta=meta, notes=notes)


def _expect_within(bound: Bound) -> Any:  # noqa: ANN401
    arguments = {"column": bound.column, "min_value": bound.low, "max_value": bound.high}
    span = f"{bound.low:.4g} to {bound.high:.4g}"
    if bound.share is None:
        return _expect(gxe.ExpectColumnMeanToBeBetween, bound.title, f"{span} on average", **arguments)
    limit = f"{span} for at least {bound.share:.0%}"
    return _expect(gxe.ExpectColumnValuesToBeBetween, bound.title, limit, mostly=bound.share, **arguments)


def _docs_site(docs: Path) -> Any:  # noqa: ANN401 GE's type for it is not public
    return {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
    }


def _run(
    context: Any,  # noqa: ANN401
    name: str,
    table: pd.DataFrame,
    suite: list[Any],
    actions: list[Any],
) -> list[CheckResult]:
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    definition = gx.ValidationDefinition(
        name=name,
        data=asset.add_batch_definition_whole_dataframe("all"),
        suite=context.suites.add(gx.ExpectationSuite(name=name, expectations=suite)),
    )
    checkpoint = gx.Checkpoint(
        name=name,
        validation_definitions=[context.validation_definitions.add(definition)],
        actions=actions,
        result_format={"result_format": "BASIC", "partial_unexpected_count": MAX_EXAMPLES},
    )
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table})
    (results,) = outcome.run_results.values()
    by_title = {result.expectation_config.meta["title"]: result for result in results.results}
    return [_check_result(expectation.meta, by_title[expectation.meta["title"]]) for expectation in suite]


def _check_result(meta: dict[str, str], outcome: Any) -> CheckResult:  # noqa: ANN401
    error = outcome.exception_info.get("exception_message")
    observed = f"not checked: {error}" if error else meta.get("observed") or _observed(outcome.result)
    return CheckResult(expectation=meta["title"], success=bool(outcome.success), observed=observed, limit=meta["limit"])


def _observed(result: dict[str, Any]) -> str:
    """How many values fail, with examples; or the mean."""
    if isinstance(observed := result.get("observed_value"), int | float):
        return f"{observed:.4g} on average"
    checked = result["element_count"] - result.get("missing_count", 0)
    examples = sorted({str(value) for value in result["partial_unexpected_list"]} - {"True"})
    such_as = f", such as {', '.join(examples)}" if examples else ""
    return f"{result['unexpected_count']} of {checked} fail{such_as}"
