"""May this data enter? The answer of Great Expectations, from a suite in code."""

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

from cots.data.image_decoding import RejectReason
from cots.data.manifest import SCHEMA
from cots.data.quality.audit import DERIVED, SOUND
from cots.data.samples import SPLITS
from cots.directions import MEDIA

EXAMPLES = 3  # values against an expectation that are shown
SITE = "docs"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """How one expectation came out.

    Attributes:
        expectation: in words.
        observed: in words: how many values are against it, and some of them.
        limit: what is allowed, in words.
    """

    expectation: str
    success: bool
    observed: str
    limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Where the numbers of a column should lie.

    Attributes:
        title: what is expected, in words; unique in its suite.
        column: of numbers.
        low: least value; high: largest value.
        share: of the rows that must lie there, in (0, 1]; None means that the mean of the column must.
    """

    title: str
    column: str
    low: float
    high: float
    share: float | None


def check_bounds(table: pd.DataFrame, bounds: Sequence[Bound]) -> list[CheckResult]:
    """Hold a table against bounds, one verdict each, in their order.

    Args:
        table: at least one row; every column that a bound names.
        bounds: with titles that differ.
    """
    return _run(_context(), "table", table, [_within(bound) for bound in bounds], actions=[])


def validate_manifest(
    manifest: pd.DataFrame,
    rejected: pd.DataFrame,
    docs: Path,
    *,
    parts: Sequence[str],
    min_side: int,
    max_pixels: int,
    max_frames: int,
    max_words: int,
    max_duplicates: float,
    max_leakage: float,
    max_suspects: float,
) -> list[CheckResult]:
    """Hold the data against the suite and write the Data Docs.

    Args:
        manifest: as `audited` gives it.
        rejected: the table of rejects.
        docs: folder of the Data Docs; they carry the time, so do not hash them.
        parts: that later stages need, as `train image`.
        min_side: of the originals, pixels.
        max_pixels: of the originals.
        max_frames: of a sample.
        max_words: of a caption.
        max_duplicates: share of samples whose pixels occur before in their split.
        max_leakage: share of val and test samples whose pixels occur in train.
        max_suspects: share of samples with a caption that a trained filter distrusts.

    Returns:
        One verdict an expectation, in the suite's order.
    """
    context = _context()
    context.add_data_docs_site(SITE, _site(docs))
    suite = [
        *_names(parts),
        *_captions(max_words),
        *_pictures(min_side=min_side, max_pixels=max_pixels, max_frames=max_frames),
        _at_most("pictures do not repeat within a split", max_duplicates, "repeats", right=False),
        _at_most("val and test pictures do not occur in train", max_leakage, "leaks", right=False),
        _at_most("captions are not distrusted by a trained filter", max_suspects, "suspected", right=0),
    ]
    actions = [UpdateDataDocsAction(name=SITE, site_names=[SITE])]
    verdicts = _run(context, "manifest", manifest, suite, actions)
    return verdicts + _run(context, "rejected", rejected, _rejects(), actions)


def _context() -> Any:  # noqa: ANN401 GE ships no types
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _rule(kind: type[Any], title: str, limit: str, **settings: object) -> Any:  # noqa: ANN401 GE ships no types
    return kind(**settings, meta={"title": title, "limit": limit}, notes=title)


def _names(parts: Sequence[str]) -> list[Any]:
    unique, match, known = (
        gxe.ExpectColumnValuesToBeUnique,
        gxe.ExpectColumnValuesToMatchRegex,
        gxe.ExpectColumnValuesToBeInSet,
    )
    columns, needed = [*SCHEMA.names, *DERIVED], sorted(set(parts))
    return [
        _rule(gxe.ExpectTableColumnsToMatchSet, "the columns are complete", "no more, no less", column_set=columns),
        _rule(unique, "keys are unique", "all", column="key"),
        _rule(match, "keys have nine digits", "all", column="key", regex=r"^\d{9}$"),
        _rule(unique, "ids are unique", "all", column="id"),
        _rule(known, "splits are known", ", ".join(SPLITS), column="split", value_set=list(SPLITS)),
        _rule(known, "media are known", ", ".join(MEDIA), column="media", value_set=list(MEDIA)),
        _rule(
            gxe.ExpectColumnDistinctValuesToContainSet,
            "no part that index.target needs is empty",
            ", ".join(needed),
            column="part",
            value_set=needed,
        ),
    ]


def _captions(max_words: int) -> list[Any]:
    between, equal = gxe.ExpectColumnValuesToBeBetween, gxe.ExpectColumnPairValuesToBeEqual
    return [
        _rule(between, "every sample has a caption", "1 at least", column="captions", min_value=1),
        _rule(between, "no caption is blank", "none", column="blank", max_value=0),
        _rule(between, "captions are short", f"{max_words} words at most", column="words", max_value=max_words),
        _rule(equal, "every caption is flagged as right or wrong", "all", column_A="flags", column_B="captions"),
        _rule(between, "val and test have no wrong captions", "none", column="wrong_held_out", max_value=0),
    ]


def _pictures(*, min_side: int, max_pixels: int, max_frames: int) -> list[Any]:
    between, known = gxe.ExpectColumnValuesToBeBetween, gxe.ExpectColumnValuesToBeInSet
    side, most, frames = f"{min_side} pixels at least", f"{max_pixels} pixels at most", f"1 to {max_frames}"
    return [
        _rule(between, "pictures are wide enough", side, column="width", min_value=min_side),
        _rule(between, "pictures are high enough", side, column="height", min_value=min_side),
        _rule(between, "pictures are not too large", most, column="pixels", max_value=max_pixels),
        _rule(between, "samples have frames", frames, column="frames", min_value=1, max_value=max_frames),
        _rule(between, "no sample is empty", "1 byte at least", column="bytes", min_value=1),
        _rule(known, "shards hold what the manifest names", "all opened", column="opened", value_set=[SOUND]),
    ]


def _at_most(title: str, limit: float, column: str, *, right: bool | int) -> Any:  # noqa: ANN401
    kind = gxe.ExpectColumnValuesToBeInSet
    return _rule(kind, title, f"{limit:.2%} at most", column=column, value_set=[right], mostly=1 - limit)


def _within(bound: Bound) -> Any:  # noqa: ANN401
    limits = {"column": bound.column, "min_value": bound.low, "max_value": bound.high}
    span = f"{bound.low:.4g} to {bound.high:.4g}"
    if bound.share is None:
        return _rule(gxe.ExpectColumnMeanToBeBetween, bound.title, f"{span} on average", **limits)
    limit = f"{span} for {bound.share:.0%} at least"
    return _rule(gxe.ExpectColumnValuesToBeBetween, bound.title, limit, mostly=bound.share, **limits)


def _rejects() -> list[Any]:
    reasons = sorted(get_args(RejectReason))
    known = gxe.ExpectColumnValuesToBeInSet
    return [_rule(known, "rejects have a known reason", f"{len(reasons)} reasons", column="reason", value_set=reasons)]


def _site(docs: Path) -> Any:  # noqa: ANN401 GE's type for it is not public
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
        result_format={"result_format": "BASIC", "partial_unexpected_count": EXAMPLES},
    )
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table})
    (results,) = outcome.run_results.values()
    by_title = {result.expectation_config.meta["title"]: result for result in results.results}
    return [_verdict(rule.meta, by_title[rule.meta["title"]]) for rule in suite]


def _verdict(meta: dict[str, str], outcome: Any) -> CheckResult:  # noqa: ANN401
    error = outcome.exception_info.get("exception_message")
    observed = f"not checked: {error}" if error else _observed(outcome.result)
    return CheckResult(expectation=meta["title"], success=bool(outcome.success), observed=observed, limit=meta["limit"])


def _observed(result: dict[str, Any]) -> str:
    """How many values are against the expectation, with examples; what is missing, where a set is expected."""
    if isinstance(observed := result.get("observed_value"), int | float):
        return f"{observed:.4g} on average"
    if "unexpected_count" not in result:
        missing = result.get("partial_missing_list") or result.get("details", {}).get("mismatched", {})
        return f"missing or unknown: {missing}" if missing else "as expected"
    checked = result["element_count"] - result.get("missing_count", 0)
    examples = sorted({str(value) for value in result["partial_unexpected_list"]} - {"True"})
    told = f", such as {', '.join(examples)}" if examples else ""
    return f"{result['unexpected_count']} of {checked} against it{told}"
