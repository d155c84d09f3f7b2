"""The metrics of retrieval, one record each; scores, chance, intervals, tables, cards and report iterate over them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cots.evaluation.metrics import RECALL_KS, Doubles, Ints, RankedQueries, weighted_median


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One score of a direction: the mean or median over its queries, in the metric's unit.

    Attributes:
        name: in metrics.json, in tables and, without `@`, in tags of the registry.
        title: what people read.
        description: one sentence.
        values: (Q,) what each query counts for.
        chance: of candidates in random order: the expected mean, or the median, exactly.
        aggregate: what becomes of the values.
        unit: per cent, where values and chance lie in [0, 1], or ranks.
        higher_is_better: whether a larger score is the better one.
        hub_name: on model cards; a metric without one is in metrics.json and in the report alone.
    """

    name: str
    title: str
    description: str
    values: Callable[[RankedQueries], NDArray[Any]]
    chance: Callable[[RankedQueries], float]
    aggregate: Literal["mean", "median"] = "mean"
    unit: Literal["per cent", "rank"] = "per cent"
    higher_is_better: bool = True
    hub_name: str | None

    @property
    def scale(self) -> float:
        """From values to the unit."""
        return 100.0 if self.unit == "per cent" else 1.0

    def score(self, direction: RankedQueries) -> float:
        """The metric of one direction."""
        values = self.values(direction)
        return self.scale * float(np.median(values) if self.aggregate == "median" else np.mean(values))

    def scaled(self, direction: RankedQueries) -> Doubles:
        """(Q,) the values in the metric's unit."""
        return self.scale * self.values(direction).astype(np.float64)


def summarize(direction: RankedQueries) -> dict[str, float]:
    """Every score of one direction, by the metric's name."""
    return {metric.name: metric.score(direction) for metric in METRICS}


def chance_level(direction: RankedQueries) -> dict[str, float]:
    """What `scores` expects of candidates in random order, exactly."""
    return {metric.name: metric.scale * metric.chance(direction) for metric in METRICS}


def headline() -> list[Metric]:
    """The metrics of cards and of tables in a terminal."""
    return [metric for metric in METRICS if metric.hub_name]


def _ranks(direction: RankedQueries) -> Ints:
    return direction.ranks


def _recall_by_chance(direction: RankedQueries, *, k: int) -> float:
    return float(_found_by_chance(direction)[min(k, direction.candidates) - 1])


def _precision_by_chance(direction: RankedQueries) -> float:
    """Place i holds a right one with probability r / n, and then each place before it with (r - 1) / (n - 1).

    AP@R is 1/n sum_{i=1..r} (1 + (i - 1)(r - 1) / (n - 1)) / i on average.
    """
    weights, counts = _right_candidates(direction)
    return float(sum(w * _precision_of(int(r), direction.candidates) for w, r in zip(weights, counts, strict=True)))


def _precision_of(relevant: int, candidates: int) -> float:
    before = np.arange(relevant)  # places before each of the first R
    others = before * (relevant - 1) / max(candidates - 1, 1)
    return float(np.sum((1 + others) / (before + 1))) / candidates


def _median_by_chance(direction: RankedQueries) -> float:
    return weighted_median(np.arange(1, direction.candidates + 1), np.diff(_found_by_chance(direction), prepend=0))


def _mean_rank_by_chance(direction: RankedQueries) -> float:
    """The first of r right ones among n candidates stands at (n + 1) / (r + 1) on average."""
    weights, counts = _right_candidates(direction)
    return float(weights @ ((direction.candidates + 1) / (counts + 1)))


def _found_by_chance(direction: RankedQueries) -> Doubles:
    """(n,) probability that a random order has a right candidate among its first 1 .. n.

    A query with r right ones misses the first k with probability C(n - r, k) / C(n, k).
    """
    n = direction.candidates
    drawn, found = np.arange(n), np.zeros(n)
    for weight, relevant in zip(*_right_candidates(direction), strict=True):
        missed = np.cumprod(np.clip(n - int(relevant) - drawn, 0, None) / (n - drawn), dtype=np.float64)
        found += weight * (1 - missed)
    return found


def _right_candidates(direction: RankedQueries) -> tuple[Doubles, Ints]:
    """How many right candidates queries have: the share of the queries with each number, and the numbers."""
    counts, queries = np.unique(direction.relevant, return_counts=True)
    return queries / queries.sum(), counts


def _recall(k: int) -> Metric:
    return Metric(
        name=f"R@{k}",
        title=f"R@{k}",
        description=f"Queries with a right candidate among the first {k}.",
        values=lambda direction: direction.ranks <= k,
        chance=partial(_recall_by_chance, k=k),
        hub_name=f"recall_at_{k}",
    )


METRICS: tuple[Metric, ...] = (
    *map(_recall, RECALL_KS),
    # Source: Musgrave, Belongie, Lim, A Metric Learning Reality Check, arXiv:2003.08505.
    Metric(
        name="mAP@R",
        title="mAP@R",
        description="How purely a query's R right candidates fill the first R places; with one right one it is R@1.",
        values=lambda direction: direction.average_precision,
        chance=_precision_by_chance,
        hub_name="map_at_r",
    ),
    Metric(
        name="MdR",
        title="MdR",
        description="Median rank of the best-placed right candidate.",
        values=_ranks,
        chance=_median_by_chance,
        aggregate="median",
        unit="rank",
        higher_is_better=False,
        hub_name="median_rank",
    ),
    Metric(
        name="mean_rank",
        title="Mean rank",
        description="Mean rank of the best-placed right candidate.",
        values=_ranks,
        chance=_mean_rank_by_chance,
        unit="rank",
        higher_is_better=False,
        hub_name=None,
    ),
)
