"""Bootstrap intervals: what the scores would be on another draw of items of the same kind.

Whole items are drawn with replacement, each with all its queries in both directions: captions of one picture are no
independent evidence. Candidates stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from cots.evaluation import metric_table
from cots.evaluation.metrics import RECALL_KS, Doubles, Ints, RankedQueries, weighted_median

TAILS = (2.5, 97.5)  # per cent; between them lies the 95 % interval
RECALLS = tuple(f"R@{k}" for k in RECALL_KS)


@dataclass(frozen=True, slots=True)
class Sums:
    """What each item's queries add to the scores that are means over queries.

    Attributes:
        names: K scores, such as `i2t R@1`.
        values: (N, K) sums over the queries of each item; per cent, but ranks for the mean rank.
        queries: (N, K) how many queries these are.
    """

    names: tuple[str, ...]
    values: Doubles
    queries: Doubles

    @classmethod
    def of(cls, directions: Mapping[str, RankedQueries]) -> Self:
        """Every mean of both directions, side by side."""
        columns = {
            f"{way} {name}": column
            for way, direction in directions.items()
            for name, column in _columns(direction).items()
        }
        values, queries = zip(*columns.values(), strict=True)
        return cls(tuple(columns), np.stack(values, axis=1), np.stack(queries, axis=1))

    def means(self, times: Doubles) -> Doubles:
        """(K,) the scores if item i had been drawn times[i] times."""
        return times @ self.values / (times @ self.queries)


def bootstrap(parts: Sequence[Mapping[str, RankedQueries]], *, resamples: int, seed: int) -> dict[str, Any]:
    """95 % percentile intervals of every score of each direction and of the RSUM.

    Args:
        parts: one, or the folds whose scores are averaged; items are drawn within their fold.
        resamples: draws.
        seed: of the draws.

    Returns:
        {"i2t": {"R@1": {"low", "high"}, ...}, ..., "rsum": {"low", "high"}}.
    """
    random = np.random.default_rng(seed)
    drawn = [_Part.of(part) for part in parts]
    draws = [np.mean([part.scores(random) for part in drawn], axis=0) for _ in range(resamples)]
    low, high = np.percentile(draws, TAILS, axis=0)
    bounds = zip(low.tolist(), high.tolist(), strict=True)
    return nested(dict(zip(drawn[0].names, ({"low": a, "high": b} for a, b in bounds), strict=True)))


def resample_counts(random: np.random.Generator, items: int) -> Doubles:
    """How often each of the items comes up in as many draws with replacement."""
    return np.bincount(random.integers(items, size=items), minlength=items).astype(np.float64)


def with_rsum(names: Sequence[str], means: Doubles) -> Doubles:
    """The means, and behind them the sum of those that are recalls."""
    return np.append(means, means[[name.partition(" ")[2] in RECALLS for name in names]].sum())


def nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """{"i2t R@1": ..., "rsum": ...} as {"i2t": {"R@1": ...}, "rsum": ...}."""
    tree: dict[str, Any] = {}
    for name, value in named.items():
        direction, _, score = name.partition(" ")
        if score:
            tree.setdefault(direction, {})[score] = value
        else:
            tree[direction] = value
    return tree


@dataclass(frozen=True, slots=True)
class _Part:
    """Items that are drawn together, with what their scores are made of."""

    names: list[str]
    sums: Sums
    ascending: list[tuple[Doubles, Ints]]  # of each median: its values in order, and the items they belong to

    @classmethod
    def of(cls, directions: Mapping[str, RankedQueries]) -> Self:
        sums = Sums.of(directions)
        medians = [metric for metric in metric_table.METRICS if metric.aggregate == "median"]
        names = [f"{way} {metric.name}" for way in directions for metric in medians]
        ascending = [_ascending(metric.scaled(d), d.text_to_item) for d in directions.values() for metric in medians]
        return cls([*sums.names, "rsum", *names], sums, ascending)

    def scores(self, random: np.random.Generator) -> Doubles:
        times = resample_counts(random, len(self.sums.values))
        medians = [weighted_median(values, times[owners]) for values, owners in self.ascending]
        return np.append(with_rsum(self.sums.names, self.sums.means(times)), medians)


def _columns(direction: RankedQueries) -> dict[str, tuple[Doubles, Doubles]]:
    """Sums by item of what each query counts for, and the number of queries."""
    queries = np.bincount(direction.text_to_item).astype(np.float64)
    return {
        metric.name: (np.bincount(direction.text_to_item, metric.scaled(direction)).astype(np.float64), queries)
        for metric in metric_table.METRICS
        if metric.aggregate == "mean"
    }


def _ascending(values: Doubles, owners: Ints) -> tuple[Doubles, Ints]:
    order = np.argsort(values)
    return values[order], owners[order]
