"""What an audit found, each held against its limit."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cots.data.quality.audit import Audit
from cots.data.quality.row_checks import RowCheck, reject_check
from cots.data.quality.tally import Tally


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was counted in all of the data.

    Attributes:
        title: what is expected, in words; unique.
        limit: what is allowed, in words.
        observed: how many fail, and some of them, in words.
        share: fraction that is not as expected.
        max_share: the largest allowed one.
    """

    title: str
    limit: str
    observed: str
    share: float
    max_share: float = 0.0


def list_findings(
    audit: Audit,
    checks: Sequence[RowCheck],
    reasons: pd.Series,
    *,
    required_parts: set[str],
    max_duplicates: float,
    max_leakage: float,
) -> list[Finding]:
    """Everything that is expected of the data.

    Args:
        audit: of the manifest.
        checks: those of the audit.
        reasons: why samples were rejected, one for each.
        required_parts: parts that later stages need, such as `train image`.
        max_duplicates: fraction of samples whose pixels occur earlier in their split.
        max_leakage: fraction of val and test samples whose pixels occur in train.
    """
    missing, check, rejected = sorted(required_parts - audit.parts.keys()), reject_check(), Tally()
    rejected.add(reasons, check.passes(reasons))
    return [
        _finding("keys are unique", "all", audit.keys),
        _finding("ids are unique", "all", audit.ids),
        Finding(
            "no part that index.target needs is empty",
            ", ".join(sorted(required_parts)),
            f"missing or unknown: {missing}" if missing else "as expected",
            len(missing) / len(required_parts),
        ),
        *(_finding(check.title, check.limit, audit.checks[check.title], check.max_failing) for check in checks),
        _finding("shards hold what the manifest names", "all that were opened", audit.opened),
        _finding("images do not repeat within a split", f"at most {max_duplicates:.2%}", audit.repeats, max_duplicates),
        _finding("val and test images do not occur in train", f"at most {max_leakage:.2%}", audit.leaks, max_leakage),
        _finding(check.title, check.limit, rejected),
    ]


def _finding(title: str, limit: str, tally: Tally, max_share: float = 0.0) -> Finding:
    return Finding(title, limit, str(tally), tally.share, max_share)
