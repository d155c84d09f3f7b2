"""The retrieval metrics, one record each: scores, chance, intervals, tables, cards and the report iterate over them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cots.evaluation.metrics import RECALL_KS, Doubles, Ints, RankedQueries, weighted_median


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A score of one direction: the mean or median over its queries, in the metric's unit.

    Attributes:
        name: in metrics.json, in tables and, without `@`, in tags of the registry.
        title: for people.
        description: one sentence.
        values: (Q,) value of each query.
        chance: expected mean, or exact median, if candidates were in random order.
        aggregate: how values become a score.
        unit: "per cent", with values and chance in [0, 1], or "rank".
        higher_is_better: whether a larger score is the better one.
        needs_right_ranks: whether `values` reads `right_ranks`, which query tables of release 0.1 lack.
        hub_name: on model cards and in tables; a metric without one is only in metrics.json and the report.
    """

    name: str
    title: str
    description: str
    values: Callable[[RankedQueries], NDArray[Any]]
    chance: Callable[[RankedQueries], float]
    aggregate: Literal["mean", "median"] = "mean"
    unit: Literal["per cent", "rank"] = "per cent"
    higher_is_better: bool = True
    needs_right_ranks: bool = False
    hub_name: str | None

    @property
    def scale(self) -> float:
        """Factor from values to the unit."""
        return 100.0 if self.unit == "per cent" else 1.0

    def score(self, queries: RankedQueries) -> float:
        """The metric of one direction."""
        values = self.values(queries)
        return self.scale * float(np.median(values) if self.aggregate == "median" else np.mean(values))

    def scaled_values(self, queries: RankedQueries) -> Doubles:
        """(Q,) the values in the metric's unit."""
        return self.scale * self.values(queries).astype(np.float64)


def summarize(queries: RankedQueries) -> dict[str, float]:
    """All scores of one direction, by the metric's name."""
    return {metric.name: metric.score(queries) for metric in METRICS}


def chance_level(queries: RankedQueries) -> dict[str, float]:
    """Exact expected scores of one direction if candidates were in random order."""
    return {metric.name: metric.scale * metric.chance(queries) for metric in METRICS}


def computable(queries: RankedQueries, aggregate: Literal["mean", "median"]) -> list[Metric]:
    """Metrics of one kind of aggregate for which enough is known of the queries."""
    known = queries.right_ranks is not None
    return [metric for metric in METRICS if metric.aggregate == aggregate and (known or not metric.needs_right_ranks)]


def headline() -> list[Metric]:
    """The metrics of model cards and of tables in a terminal."""
    return [metric for metric in METRICS if metric.hub_name]


def rsum(directions: Mapping[str, RankedQueries]) -> float:
    """Sum of the recalls R@1, R@5 and R@10 of both directions; 600 at most."""
    return sum(metric.score(queries) for queries in directions.values() for metric in RECALLS)


def _ranks(queries: RankedQueries) -> Ints:
    return queries.ranks


def _recall_by_chance(queries: RankedQueries, *, k: int) -> float:
    return float(_hit_probability_by_chance(queries)[min(k, queries.candidates) - 1])


def _precision_by_chance(queries: RankedQueries) -> float:
    weights, counts = _relevant_counts(queries)
    expected = [_expected_precision(int(relevant), queries.candidates) for relevant in counts]
    return float(sum(weight * precision for weight, precision in zip(weights, expected, strict=True)))


def _expected_precision(relevant: int, candidates: int) -> float:
    """Expected AP@R of a query with r right ones among n candidates: 1/n sum_{i=1..r} (1 + (i - 1)(r - 1)/(n - 1)) / i.

    Rank i holds a right one with probability r / n, and then each rank before it with (r - 1) / (n - 1).
    """
    before = np.arange(relevant)  # ranks before each of the first R
    expected_right_before = before * (relevant - 1) / max(candidates - 1, 1)
    return float(np.sum((1 + expected_right_before) / (before + 1))) / candidates


def _median_by_chance(queries: RankedQueries) -> float:
    probabilities = np.diff(_hit_probability_by_chance(queries), prepend=0)
    return weighted_median(np.arange(1, queries.candidates + 1), probabilities)


def _mean_rank_by_chance(queries: RankedQueries) -> float:
    """The best of r right ones among n candidates ranks (n + 1) / (r + 1) on average."""
    weights, counts = _relevant_counts(queries)
    return float(weights @ ((queries.candidates + 1) / (counts + 1)))


def _hit_probability_by_chance(queries: RankedQueries) -> Doubles:
    """(n,) probability that a random order has a right candidate among its first 1 .. n.

    A query with r right ones misses the first k with probability C(n - r, k) / C(n, k).
    """
    n = queries.candidates
    num_drawn, hit = np.arange(n), np.zeros(n)
    for weight, relevant in zip(*_relevant_counts(queries), strict=True):
        missed = np.cumprod(np.clip(n - int(relevant) - num_drawn, 0, None) / (n - num_drawn), dtype=np.float64)
        hit += weight * (1 - missed)
    return hit


def _relevant_counts(queries: RankedQueries) -> tuple[Doubles, Ints]:
    """Distinct numbers of right candidates, behind the fraction of queries with each."""
    counts, num_queries = np.unique(queries.relevant, return_counts=True)
    return num_queries / num_queries.sum(), counts


def _recall(k: int) -> Metric:
    return Metric(
        name=f"R@{k}",
        title=f"R@{k}",
        description=f"Queries with a right candidate among the first {k}.",
        values=lambda queries: queries.ranks <= k,
        chance=partial(_recall_by_chance, k=k),
        hub_name=f"recall_at_{k}",
    )


RECALLS = tuple(map(_recall, RECALL_KS))
METRICS: tuple[Metric, ...] = (
    *RECALLS,
    # Source: Musgrave, Belongie, Lim, A Metric Learning Reality Check, arXiv:2003.08505.
    Metric(
        name="mAP@R",
        title="mAP@R",
        description="Average precision of the first R candidates, where R is the number of right ones.",
        values=lambda queries: queries.average_precision,
        chance=_precision_by_chance,
        hub_name="map_at_r",
    ),
    Metric(
        name="MdR",
        title="MdR",
        description="Median rank of the best right candidate.",
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
        description="Mean rank of the best right candidate.",
        values=_ranks,
        chance=_mean_rank_by_chance,
        unit="rank",
        higher_is_better=False,
        hub_name=None,
    ),
)
