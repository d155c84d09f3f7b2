"""Checks of the data by Great Expectations, with suites written in code."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read by the next import

import great_expectations as gx
import pandas as pd
from great_expectations import expectations as gxe
from great_expectations.checkpoint import UpdateDataDocsAction
from great_expectations.data_context.types.base import ProgressBarsConfig

from cots.data.manifest import SCHEMA
from cots.data.quality.audit import DERIVED, INTACT
from cots.data.samples import STORED_SPLITS, RejectReason
from cots.directions import MEDIA

MAX_EXAMPLES = 3  # failing values that are shown
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


def validate_manifest(
    manifest: pd.DataFrame,
    rejected: pd.DataFrame,
    docs: Path,
    *,
    required_parts: Sequence[str],
    min_side: int,
    max_pixels: int,
    max_frames: int,
    max_words: int,
    max_long_captions: float,
    max_duplicates: float,
    max_leakage: float,
    max_suspects: float,
) -> list[CheckResult]:
    """Check the data and write the Data Docs.

    Args:
        manifest: from `audit_manifest`.
        rejected: the table of rejected samples.
        docs: folder of the Data Docs; they contain the time, so they cannot be hashed.
        required_parts: parts that later stages need, such as `train image`.
        min_side: of the originals, pixels.
        max_pixels: of the originals.
        max_frames: of a sample.
        max_words: a caption with more is long.
        max_long_captions: fraction of samples with a long caption.
        max_duplicates: fraction of samples whose pixels occur earlier in their split.
        max_leakage: fraction of val and test samples whose pixels occur in train.
        max_suspects: fraction of samples with a caption that a trained filter distrusts.

    Returns:
        One result per expectation, in the suites' order.
    """
    context = _create_context()
    context.add_data_docs_site(SITE, _docs_site(docs))
    suite = [
        *_expect_names(required_parts),
        *_expect_captions(max_words, max_long_captions),
        *_expect_images(min_side=min_side, max_pixels=max_pixels, max_frames=max_frames),
        _expect_mostly("images do not repeat within a split", max_duplicates, "repeats", allowed=False),
        _expect_mostly("val and test images do not occur in train", max_leakage, "leaks", allowed=False),
        _expect_mostly("captions are not distrusted by a trained filter", max_suspects, "suspected", allowed=0),
    ]
    actions = [UpdateDataDocsAction(name=SITE, site_names=[SITE])]
    results = _run(context, "manifest", manifest, suite, actions)
    return results + _run(context, "rejected", rejected, _expect_reasons(), actions)


def _create_context() -> Any:  # noqa: ANN401 GE ships no types
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _expect(kind: type[Any], title: str, limit: str, **arguments: object) -> Any:  # noqa: ANN401 GE ships no types
    return kind(**arguments, meta={"title": title, "limit": limit}, notes=title)


def _expect_names(required_parts: Sequence[str]) -> list[Any]:
    unique, match, known = (
        gxe.ExpectColumnValuesToBeUnique,
        gxe.ExpectColumnValuesToMatchRegex,
        gxe.ExpectColumnValuesToBeInSet,
    )
    columns, required = [*SCHEMA.names, *DERIVED], sorted(set(required_parts))
    return [
        _expect(gxe.ExpectTableColumnsToMatchSet, "the columns are complete", "no more, no less", column_set=columns),
        _expect(unique, "keys are unique", "all", column="key"),
        _expect(match, "keys have nine digits or more", "all", column="key", regex=r"^\d{9,}$"),
        _expect(unique, "ids are unique", "all", column="id"),
        _expect(known, "splits are known", ", ".join(STORED_SPLITS), column="split", value_set=list(STORED_SPLITS)),
        _expect(known, "media are known", ", ".join(MEDIA), column="media", value_set=list(MEDIA)),
        _expect(
            gxe.ExpectColumnDistinctValuesToContainSet,
            "no part that index.target needs is empty",
            ", ".join(required),
            column="part",
            value_set=required,
        ),
    ]


def _expect_captions(max_words: int, max_long: float) -> list[Any]:
    limit, mostly = f"at most {max_words} words, but for {max_long:.2%} of the samples", 1 - max_long
    between, equal = gxe.ExpectColumnValuesToBeBetween, gxe.ExpectColumnPairValuesToBeEqual
    known = gxe.ExpectColumnValuesToBeInSet
    return [
        _expect(known, "every sample of a split has a caption", "all", column="uncaptioned", value_set=[False]),
        _expect(between, "no caption is blank", "none", column="blank", max_value=0),
        _expect(between, "captions are short", limit, column="words", max_value=max_words, mostly=mostly),
        _expect(equal, "every caption is flagged as right or wrong", "all", column_A="flags", column_B="captions"),
        _expect(between, "val and test have no wrong captions", "none", column="wrong_held_out", max_value=0),
    ]


def _expect_images(*, min_side: int, max_pixels: int, max_frames: int) -> list[Any]:
    between, known = gxe.ExpectColumnValuesToBeBetween, gxe.ExpectColumnValuesToBeInSet
    side, pixels, frames = f"at least {min_side} pixels", f"at most {max_pixels} pixels", f"1 to {max_frames}"
    return [
        _expect(between, "images are wide enough", side, column="width", min_value=min_side),
        _expect(between, "images are high enough", side, column="height", min_value=min_side),
        _expect(between, "images are not too large", pixels, column="pixels", max_value=max_pixels),
        _expect(between, "samples have frames", frames, column="frames", min_value=1, max_value=max_frames),
        _expect(between, "no sample is empty", "at least 1 byte", column="bytes", min_value=1),
        _expect(
            known, "shards hold what the manifest names", "all that were opened", column="opened", value_set=[INTACT]
        ),
    ]


def _expect_mostly(title: str, max_failing: float, column: str, *, allowed: bool | int) -> Any:  # noqa: ANN401
    kind, limit = gxe.ExpectColumnValuesToBeInSet, f"at most {max_failing:.2%}"
    return _expect(kind, title, limit, column=column, value_set=[allowed], mostly=1 - max_failing)


def _expect_within(bound: Bound) -> Any:  # noqa: ANN401
    arguments = {"column": bound.column, "min_value": bound.low, "max_value": bound.high}
    span = f"{bound.low:.4g} to {bound.high:.4g}"
    if bound.share is None:
        return _expect(gxe.ExpectColumnMeanToBeBetween, bound.title, f"{span} on average", **arguments)
    limit = f"{span} for at least {bound.share:.0%}"
    return _expect(gxe.ExpectColumnValuesToBeBetween, bound.title, limit, mostly=bound.share, **arguments)


def _expect_reasons() -> list[Any]:
    reasons = sorted(get_args(RejectReason))
    known = gxe.ExpectColumnValuesToBeInSet
    return [
        _expect(known, "rejections have a known reason", f"{len(reasons)} reasons", column="reason", value_set=reasons)
    ]


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
    observed = f"not checked: {error}" if error else _observed(outcome.result)
    return CheckResult(expectation=meta["title"], success=bool(outcome.success), observed=observed, limit=meta["limit"])


def _observed(result: dict[str, Any]) -> str:
    """How many values fail, with examples; or the mean; or, if a set is expected, what is missing."""
    if isinstance(observed := result.get("observed_value"), int | float):
        return f"{observed:.4g} on average"
    if "unexpected_count" not in result:
        missing = result.get("partial_missing_list") or result.get("details", {}).get("mismatched", {})
        return f"missing or unknown: {missing}" if missing else "as expected"
    checked = result["element_count"] - result.get("missing_count", 0)
    examples = sorted({str(value) for value in result["partial_unexpected_list"]} - {"True"})
    such_as = f", such as {', '.join(examples)}" if examples else ""
    return f"{result['unexpected_count']} of {checked} fail{such_as}"
