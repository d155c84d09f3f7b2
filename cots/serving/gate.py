"""Whether a new version may take the place of the deployed one: a pure function of what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass

MARGIN = 1.0  # per cent; a mean recall that is lower by less than this is not worse


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to promote, and why."""

    promote: bool
    reasons: tuple[str, ...]


def gate(champion: Mapping[str, float], challenger: Mapping[str, float]) -> Decision:
    """Promote where the mean recall, rsum / 6, is not worse by `MARGIN` or more.

    Args:
        champion: what was measured of the deployed version: `rsum`, the sum of R@1, R@5 and R@10 of both directions,
            in per cent, from 0 to 600.
        challenger: the same of the new version.
    """
    before, after = champion["rsum"] / 6, challenger["rsum"] / 6
    promote = after > before - MARGIN
    verb = "is not worse than" if promote else "is worse than"
    return Decision(promote, (f"mean recall {after:.2f} % {verb} {before:.2f} % (margin {MARGIN} %)",))
