"""Two models on the same queries: how far apart, and could that be the luck of the draw?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cots.evaluation.bootstrap import TAILS, Sums, nested, resample_counts, with_rsum
from cots.evaluation.metrics import Doubles, RankedQueries

DIGITS = 9  # sums of per cents that cancel out leave dust below this


def paired_bootstrap(
    challenger: Sequence[Mapping[str, RankedQueries]],
    champion: Sequence[Mapping[str, RankedQueries]],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Challenger less champion in every score, by paired bootstrap.

    Both models face the same draw of items, so what makes an item hard for both cancels out. Several runs of each
    method, one a training seed, are paired in order and drawn with replacement too: the interval then covers another
    seed as well as another draw of items.

        p = min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (resamples + 1)),   d the resampled differences

    Args:
        challenger: S runs, each by the direction's name.
        champion: as many, on the same queries in the same order.
        resamples: draws; p cannot fall below 2 / (resamples + 1).
        seed: of the draws.

    Returns:
        {"i2t": {"R@1": {"challenger", "champion", "difference", "low", "high", "p"}, ...}, ..., "rsum": {...}}:
        mean scores of the runs, their difference, its 95 % interval and the two-sided p. R@k, mAP@R and RSUM in per
        cent; a lower `mean_rank` is the better one.

    Raises:
        ValueError: other numbers of runs, or runs on other queries.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 16.
    """
    _check(challenger, champion)
    new, old = ([Sums.of(run) for run in runs] for runs in (challenger, champion))
    names, queries = new[0].names, new[0].queries
    values = [np.stack([run.values for run in runs]) for runs in (new, old)]  # (S, N, K) each
    even = np.ones(len(queries))
    ours, theirs = (with_rsum(names, Sums(names, side.mean(axis=0), queries).means(even)) for side in values)
    draws = _draws(names, values[0] - values[1], queries, resamples, seed)  # (resamples, K + 1)
    low, high = np.percentile(draws, TAILS, axis=0)
    figures = np.stack([ours, theirs, ours - theirs, low, high, _p_values(draws)], axis=1).tolist()
    keys = ("challenger", "champion", "difference", "low", "high", "p")
    return nested(
        {name: dict(zip(keys, row, strict=True)) for name, row in zip([*names, "rsum"], figures, strict=True)}
    )


def _draws(names: Sequence[str], apart: Doubles, queries: Doubles, resamples: int, seed: int) -> Doubles:
    random = np.random.default_rng(seed)
    runs, items = apart.shape[:2]
    rows = []
    for _ in range(resamples):
        weights = resample_counts(random, runs) / runs
        drawn = Sums(tuple(names), np.tensordot(weights, apart, axes=1), queries)
        rows.append(with_rsum(names, drawn.means(resample_counts(random, items))))
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
        for name, direction in run.items():
            same = direction.candidates == first[name].candidates
            if not (same and np.array_equal(direction.text_to_item, first[name].text_to_item)):
                raise ValueError(f"{name}: the runs were not asked the same queries about the same candidates")
