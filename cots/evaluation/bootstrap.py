"""Bootstrap intervals: how scores would vary over other draws of items of the same kind.

Items are drawn with replacement, each with all its queries of both directions, because captions of one image are not
independent. Candidates are not resampled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from cots.evaluation import metric_table
from cots.evaluation.metrics import Doubles, Ints, RankedQueries, weighted_median

TAILS = (2.5, 97.5)  # per cent; between them lies the 95 % interval
RECALL_NAMES = {metric.name for metric in metric_table.RECALLS}


@dataclass(frozen=True, slots=True)
class ItemSums:
    """Sums over each item's queries, for the scores that are means over queries.

    Attributes:
        names: K scores, such as `i2t R@1`.
        values: (N, K) sum over the queries of each item, in the metric's unit.
        num_queries: (N, K) queries of each item.
    """

    names: tuple[str, ...]
    values: Doubles
    num_queries: Doubles

    @classmethod
    def of(cls, directions: Mapping[str, RankedQueries]) -> Self:
        """The sums of both directions, side by side."""
        columns = {
            f"{direction} {name}": column
            for direction, queries in directions.items()
            for name, column in _sum_by_item(queries).items()
        }
        values, num_queries = zip(*columns.values(), strict=True)
        return cls(tuple(columns), np.stack(values, axis=1), np.stack(num_queries, axis=1))

    def means(self, counts: Doubles) -> Doubles:
        """(K,) the scores if item i is drawn counts[i] times."""
        return counts @ self.values / (counts @ self.num_queries)


def bootstrap(folds: Sequence[Mapping[str, RankedQueries]], *, resamples: int, seed: int) -> dict[str, Any]:
    """95 % percentile intervals of all scores of each direction and of the RSUM.

    Args:
        folds: both directions of each fold; scores are averaged over folds, items are drawn within their fold.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        {"i2t": {"R@1": {"low", "high"}, ...}, ..., "rsum": {"low", "high"}}.
    """
    random = np.random.default_rng(seed)
    samplers = [_FoldSampler.of(fold) for fold in folds]
    draws = [np.mean([sampler.draw_scores(random) for sampler in samplers], axis=0) for _ in range(resamples)]
    lows, highs = np.percentile(draws, TAILS, axis=0)
    intervals = [{"low": low, "high": high} for low, high in zip(lows.tolist(), highs.tolist(), strict=True)]
    return nest(dict(zip(samplers[0].names, intervals, strict=True)))


def resample_counts(random: np.random.Generator, items: int) -> Doubles:
    """How often each item comes up in a draw with replacement of as many items."""
    return np.bincount(random.integers(items, size=items), minlength=items).astype(np.float64)


def append_rsum(names: Sequence[str], means: Doubles) -> Doubles:
    """The means, followed by the sum of those that are recalls."""
    return np.append(means, means[[name.partition(" ")[2] in RECALL_NAMES for name in names]].sum())


def nest(named: Mapping[str, Any]) -> dict[str, Any]:
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
class _FoldSampler:
    """Resamples the items of one fold and computes its scores."""

    names: list[str]
    sums: ItemSums
    ascending: list[tuple[Doubles, Ints]]  # for each median: values in ascending order, and their items

    @classmethod
    def of(cls, directions: Mapping[str, RankedQueries]) -> Self:
        sums = ItemSums.of(directions)
        medians = [
            (f"{direction} {metric.name}", _sort(metric.scaled_values(queries), queries.query_to_item))
            for direction, queries in directions.items()
            for metric in metric_table.computable(queries, "median")
        ]
        return cls([*sums.names, "rsum", *(name for name, _ in medians)], sums, [values for _, values in medians])

    def draw_scores(self, random: np.random.Generator) -> Doubles:
        counts = resample_counts(random, len(self.sums.values))
        medians = [weighted_median(values, counts[items]) for values, items in self.ascending]
        return np.append(append_rsum(self.sums.names, self.sums.means(counts)), medians)


def _sum_by_item(queries: RankedQueries) -> dict[str, tuple[Doubles, Doubles]]:
    """For each mean metric: the sum of its values over the queries of each item, and the number of these queries."""
    num_queries = np.bincount(queries.query_to_item).astype(np.float64)
    return {
        metric.name: (
            np.bincount(queries.query_to_item, metric.scaled_values(queries)).astype(np.float64),
            num_queries,
        )
        for metric in metric_table.computable(queries, "mean")
    }


def _sort(values: Doubles, items: Ints) -> tuple[Doubles, Ints]:
    order = np.argsort(values)
    return values[order], items[order]
