"""Paired bootstrap of two models on the same queries: how much they differ, and whether chance explains it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cots.evaluation.bootstrap import TAILS, ItemSums, append_rsum, nest, resample_counts
from cots.evaluation.metrics import Doubles, RankedQueries

DIGITS = 9  # rounding error of sums that cancel out is below this


def paired_bootstrap(
    challenger: Sequence[Mapping[str, RankedQueries]],
    champion: Sequence[Mapping[str, RankedQueries]],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Challenger minus champion in every score, by paired bootstrap.

    Both models are scored on the same draws of items, so that the difficulty of an item cancels out. If each method has
    several runs, one per training seed, runs are paired in order and drawn with replacement too; the interval then
    covers another seed as well as another draw of items.

        p = min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (resamples + 1)),   d the resampled differences

    Args:
        challenger: S runs, each with its directions by name.
        champion: as many, on the same queries in the same order.
        resamples: number of draws; p cannot fall below 2 / (resamples + 1).
        seed: of the draws.

    Returns:
        {"i2t": {"R@1": {"challenger", "champion", "difference", "low", "high", "p"}, ...}, ..., "rsum": {...}}:
        mean scores of the runs, their difference, its 95 % interval and the two-sided p. R@k, mAP@R and RSUM are in
        per cent; a lower `mean_rank` is better.

    Raises:
        ValueError: different numbers of runs, or runs on different queries.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 16.
    """
    _check(challenger, champion)
    new, old = ([ItemSums.of(run) for run in runs] for runs in (challenger, champion))
    names, num_queries = new[0].names, new[0].num_queries
    values = [np.stack([run.values for run in runs]) for runs in (new, old)]  # (S, N, K) each
    once = np.ones(len(num_queries))
    ours, theirs = (append_rsum(names, ItemSums(names, side.mean(axis=0), num_queries).means(once)) for side in values)
    draws = _draw_differences(names, values[0] - values[1], num_queries, resamples, seed)  # (resamples, K + 1)
    low, high = np.percentile(draws, TAILS, axis=0)
    results = np.stack([ours, theirs, ours - theirs, low, high, _p_values(draws)], axis=1).tolist()
    keys = ("challenger", "champion", "difference", "low", "high", "p")
    return nest({name: dict(zip(keys, row, strict=True)) for name, row in zip([*names, "rsum"], results, strict=True)})


def _draw_differences(
    names: tuple[str, ...], differences: Doubles, num_queries: Doubles, resamples: int, seed: int
) -> Doubles:
    """Differences of all scores, and of the RSUM, for each draw of runs and items."""
    random = np.random.default_rng(seed)
    runs, items = differences.shape[:2]
    rows = []
    for _ in range(resamples):
        weights = resample_counts(random, runs) / runs
        sums = ItemSums(names, np.tensordot(weights, differences, axes=1), num_queries)
        rows.append(append_rsum(names, sums.means(resample_counts(random, items))))
    return np.asarray(np.round(rows, DIGITS))


def _p_values(draws: Doubles) -> Doubles:
    beyond = np.minimum((draws <= 0).sum(axis=0), (draws >= 0).sum(axis=0))
    return np.asarray(np.minimum(1, 2 * (1 + beyond) / (len(draws) + 1)))


def _check(challenger: Sequence[Mapping[str, RankedQueries]], champion: Sequence[Mapping[str, RankedQueries]]) -> None:
    if not challenger or len(challenger) != len(champion):
        raise ValueError(f"runs are compared in pairs, not {len(challenger)} with {len(champion)}")
    first = challenger[0]
    for run in (*challenger, *champion):
        if list(run) != list(first):
            raise ValueError(f"directions differ: {', '.join(run)} and {', '.join(first)}")
        for name, queries in run.items():
            same_candidates = queries.candidates == first[name].candidates
            if not (same_candidates and np.array_equal(queries.query_to_item, first[name].query_to_item)):
                raise ValueError(f"{name}: the runs have different queries or candidates")
