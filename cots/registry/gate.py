"""The promotion gate: a pure function from measurements to a decision."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cots.config.gate import GateConfig
from cots.directions import LABELS

BOTH = "both"  # key of the mean over both directions
INTERVAL_SDS = 1.96  # half of a 95 % interval, in standard deviations of the estimate
# Standard deviation of an item's difference in mean recall, points. One model's mean recall lies between 0 and 100, so
# it has at most 50; two models that correlate by r differ by 50 sqrt(2 (1 - r)), which is 50 at r = 1/2.
ITEM_SD = 50.0


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean recall (mean of R@1, R@5 and R@10, in per cent) of two models on the same queries.

    Attributes:
        challenger: mean recall of the new version.
        champion: mean recall of the deployed version.
        low: lower end of the 95 % interval of challenger minus champion, points.
        high: upper end of that interval.
    """

    challenger: float
    champion: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateInputs:
    """Measurements of a challenger and of the champion it is compared with.

    Attributes:
        differences: by direction and for `BOTH`; None if both versions have the same encoders.
        test_items: images or videos that the differences were measured on; None likewise.
        champion_drop: mean recall that the champion has lost since it was registered, points; 0 if the test queries
            are the same.
        recall: of the challenger's index relative to exact search, 0 to 1.
        milliseconds: search time per query in that index.
        validated: whether the data passed every check.
    """

    differences: Mapping[str, Difference] | None
    test_items: int | None
    champion_drop: float
    recall: float
    milliseconds: float
    validated: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values under the names that the tag `gate.contest` and reports/gate.json have had since 0.1."""
        values = asdict(self)
        return {"fall" if name == "champion_drop" else name: value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class AboveChance:
    """R@10 of one direction, in per cent, beside what a random order would give.

    Attributes:
        recall: as measured.
        low: lower end of its 95 % interval (Wilson's, of as many trials as there are items: captions of one item are
            not independent).
        high: upper end.
        chance: expected of a random order.
    """

    recall: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to promote, with the reasons: every objection, or the measured differences if there is none."""

    promote: bool
    reasons: tuple[str, ...]


def decide(inputs: GateInputs, rules: GateConfig) -> Decision:
    """Promote unless a rule objects.

    Non-inferiority: in every direction the interval of the difference must not reach below
    -`rules.non_inferiority_margin`; otherwise the test queries cannot exclude such a loss. Superiority: the interval of
    `rules.must_improve` must lie above 0. On fewer than `rules.min_test_items` neither can be shown.
    """
    objections = tuple(_objections(inputs, rules))
    return Decision(not objections, objections or tuple(_findings(inputs)))


def decide_first(directions: Mapping[str, AboveChance], test_items: int, rules: GateConfig) -> Decision:
    """Promote the first version, unless its test queries show that it may be no better than a random order.

    Args:
        directions: measured recalls by direction; empty if nothing was measured.
        test_items: images or videos that they were measured on.
        rules: thresholds of the gate; on fewer than `min_test_items` nothing can be shown.
    """
    first = "it is the first version"
    if not directions:
        return Decision(True, (first, "nothing was measured, because the test split has no captions"))
    if test_items < rules.min_test_items:
        return Decision(True, (first,))
    objections = tuple(
        f"R@10 of {LABELS[name]} {result.recall:.1f} % (95 % CI {result.low:.1f} to {result.high:.1f}) is not clearly "
        f"above the {result.chance:.1f} % of chance"
        for name, result in directions.items()
        if result.low <= result.chance
    )
    return Decision(False, objections) if objections else Decision(True, (first,))


def _objections(inputs: GateInputs, rules: GateConfig) -> Iterator[str]:
    if not inputs.validated:
        yield "data validation failed"
    if inputs.recall < rules.min_recall:
        yield f"index recall {inputs.recall:.1%} of exact search; at least {rules.min_recall:.1%} required"
    if inputs.milliseconds > rules.max_latency_ms:
        yield f"index latency {inputs.milliseconds:.2f} ms per query; at most {rules.max_latency_ms:g} ms allowed"
    if inputs.champion_drop > rules.max_champion_drop:
        yield (
            f"on the current test queries the champion scores {inputs.champion_drop:.1f} points less than when it was "
            f"registered (allowed {rules.max_champion_drop:g}): check the captions of the test split"
        )
    yield from _objections_to_encoders(inputs, rules)


def _objections_to_encoders(inputs: GateInputs, rules: GateConfig) -> Iterator[str]:
    if inputs.test_items is not None and inputs.test_items < rules.min_test_items:
        yield (
            f"the test split has {inputs.test_items} of the {rules.min_test_items} items (gate.min_test_items) that it "
            "takes to show which encoders are better: add images with captions, or deploy it by `cots registry promote`"
        )
        return
    for name, difference in (inputs.differences or {}).items():
        if name != BOTH and difference.low < -rules.non_inferiority_margin:
            yield f"{_format_difference(name, difference, allowed=rules.non_inferiority_margin)} may be worse"
        if name == rules.must_improve and difference.low <= 0:
            yield f"{_format_difference(name, difference)} is not shown to be better"


def _findings(inputs: GateInputs) -> Iterator[str]:
    if inputs.differences is None:
        yield "same encoders as the champion"
    for name, difference in (inputs.differences or {}).items():
        yield _format_difference(name, difference)


def _format_difference(name: str, recall: Difference, *, allowed: float | None = None) -> str:
    label = LABELS.get(name, "both directions")
    gain = recall.challenger - recall.champion
    interval = f"95 % CI {recall.low:+.1f} to {recall.high:+.1f}"
    limit = "" if allowed is None else f"; allowed {-allowed:g}"
    means = f"{recall.challenger:.1f} % vs champion {recall.champion:.1f}"
    return f"mean recall of {label} {means} ({gain:+.1f}, {interval}{limit})"


def detectable_gain(test_items: int) -> float:
    """The smallest gain in mean recall that a test split of this size is sure to show, points.

        1.96 ITEM_SD / sqrt(n)

    That is half the width of the 95 % interval of a difference over n items (normal approximation of the paired
    bootstrap), at the largest standard deviation that is to be expected; `ITEM_SD` says why. Encoders as good as the
    champion are shown to be no worse than the margin allows if this is not above `GateConfig.non_inferiority_margin`.

    Args:
        test_items: n, images or videos in the test split, above 0.
    """
    return INTERVAL_SDS * ITEM_SD / math.sqrt(test_items)


def required_test_items(rules: GateConfig) -> int | None:
    """The number of test items from which on `detectable_gain` is within the margin; None if the margin is 0.

    n = max(min_test_items, ceil((1.96 ITEM_SD / non_inferiority_margin)^2))
    """
    if not rules.non_inferiority_margin:
        return None
    return max(rules.min_test_items, math.ceil((INTERVAL_SDS * ITEM_SD / rules.non_inferiority_margin) ** 2))
