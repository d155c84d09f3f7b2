"""Whether a new version may take the place of the deployed one: a pure function of what was measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cots.config.gate import GateConfig
from cots.directions import LABELS

BOTH = "both"  # directions together


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean recall, the mean of R@1, R@5 and R@10 in per cent, of two models on the same queries.

    Attributes:
        challenger: of the new one.
        champion: of the deployed one.
        low: lower end of the 95 % interval of their difference, challenger less champion.
        high: its upper end.
    """

    challenger: float
    champion: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateInputs:
    """What was measured of a challenger, and of the champion beside it.

    Attributes:
        differences: by direction and for `BOTH`; None where both versions hold the same encoders.
        fall: how far the champion's mean recall lies below what it was registered with, points; 0 on the same queries.
        recall: of the challenger's index against exact search, 0 to 1.
        milliseconds: a query against that index.
        validated: whether the data met every expectation.
    """

    differences: Mapping[str, Difference] | None
    champion_drop: float
    recall: float
    milliseconds: float
    validated: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to promote, and why: what speaks against it, or what was found where nothing does."""

    promote: bool
    reasons: tuple[str, ...]


def decide(contest: GateInputs, rules: GateConfig) -> Decision:
    """Promote where nothing speaks against it.

    A direction is worse where the interval of its difference reaches below -`rules.non_inferiority_margin`: the test
    queries then cannot exclude such a loss. `rules.must_improve` must gain: its interval lies above 0.
    """
    against = tuple(_against(contest, rules))
    return Decision(not against, against or tuple(_found(contest)))


def _against(contest: GateInputs, rules: GateConfig) -> Iterator[str]:
    if not contest.validated:
        yield "the data did not meet every expectation"
    if contest.recall < rules.min_recall:
        yield f"the index finds {contest.recall:.1%} of what exact search finds, less than {rules.min_recall:.1%}"
    if contest.milliseconds > rules.max_latency_ms:
        yield f"the index takes {contest.milliseconds:.2f} ms a query, more than {rules.max_latency_ms:g}"
    if contest.champion_drop > rules.max_champion_drop:
        yield (
            f"on the present test queries the champion itself scores {contest.champion_drop:.1f} points less than "
            f"when it was registered, more than {rules.max_champion_drop:g}: look at the captions of the test split"
        )
    for name, one in (contest.differences or {}).items():
        if name != BOTH and one.low < -rules.non_inferiority_margin:
            yield f"{_told(name, one)} may be worse by more than {rules.non_inferiority_margin:g}"
        if name == rules.must_improve and one.low <= 0:
            yield f"{_told(name, one)} is not shown to be better"


def _found(contest: GateInputs) -> Iterator[str]:
    if contest.differences is None:
        yield "the encoders are the champion's"
    for name, one in (contest.differences or {}).items():
        yield _told(name, one)


def _told(name: str, one: Difference) -> str:
    what = f"mean recall of {LABELS.get(name, 'both directions')}"
    apart = one.challenger - one.champion
    return f"{what} {one.challenger:.2f} % against {one.champion:.2f} ({apart:+.2f}, {one.low:+.2f} to {one.high:+.2f})"
