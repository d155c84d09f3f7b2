"""Retrieval metrics: where the right item stands, how often it is near the top, and what chance would give.

Items (pictures or clips) and texts share one space. `owners[j] = i` says that text j describes item i, so
`owners = [0, 0, 1, 1]` means that the first two texts describe the first item. Ranks start at 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KS = (1, 5, 10)
BLOCK = 1 << 22  # similarities held at once: 32 MB of float64
TIE = 1e-12  # BLAS may add equal vectors up in two orders; far below what two float32 vectors can differ by

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of retrieval: every query's rank, and what chance is reckoned from.

    Attributes:
        ranks: (Q,) rank of the best-placed right candidate.
        owners: (Q,) the item that each query is, or describes; queries of one item are resampled together.
        relevant: (Q,) right candidates of each query.
        candidates: how many were ranked.
    """

    ranks: Ints
    owners: Ints
    relevant: Ints
    candidates: int


def retrieval(items: Floats, texts: Floats, owners: Ints) -> tuple[Direction, Direction]:
    """Rank all texts for every item, and all items for every text.

    Args:
        items: (N, D) unit rows.
        texts: (M, D) unit rows.
        owners: (M,) row of the item that each text describes; every item owns at least one text.

    Returns:
        Item to text, and text to item.

    Raises:
        ValueError: shapes that do not fit, an embedding that is not finite, an item without a text.
    """
    _check(items, texts, owners)
    rows, captions = np.arange(len(items)), np.bincount(owners, minlength=len(items))
    return (
        Direction(_ranks(items, texts, rows, owners), rows, captions, len(texts)),
        Direction(_ranks(texts, items, owners, rows), owners, np.ones_like(owners), len(items)),
    )


def recall_at_k(ranks: Ints, k: int) -> float:
    """Share of the queries with a right candidate among the first k, per cent."""
    return 100 * float(np.mean(ranks <= k))


def median_rank(ranks: Ints) -> float:
    """The middle rank; the mean of the middle two where their number is even."""
    return float(np.median(ranks))


def scores(direction: Direction) -> dict[str, float]:
    """R@1, R@5 and R@10 (per cent), MdR and the mean rank of one direction."""
    recalls = {f"R@{k}": recall_at_k(direction.ranks, k) for k in KS}
    return recalls | {"MdR": median_rank(direction.ranks), "mean_rank": float(direction.ranks.mean())}


def rsum(directions: Mapping[str, Direction]) -> float:
    """The sum of R@1, R@5 and R@10 over both directions, per cent of 600."""
    return sum(recall_at_k(direction.ranks, k) for direction in directions.values() for k in KS)


def chance(direction: Direction) -> dict[str, float]:
    """What `scores` expects of candidates in random order, exactly.

    A query with r right ones among n candidates misses the first k with probability C(n - r, k) / C(n, k);
    the first right one stands at (n + 1) / (r + 1) on average. MdR is the median of that distribution of ranks.
    """
    n = direction.candidates
    counts, queries = np.unique(direction.relevant, return_counts=True)
    weights = queries / queries.sum()
    found = sum(w * _found_by(int(r), n) for w, r in zip(weights, counts, strict=True))  # (n,): rank <= 1 .. n
    return {
        **{f"R@{k}": 100 * float(found[min(k, n) - 1]) for k in KS},
        "MdR": _median(np.arange(1, n + 1), np.diff(found, prepend=0)),
        "mean_rank": float(weights @ ((n + 1) / (counts + 1))),
    }


def bootstrap(directions: Mapping[str, Direction], *, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """95 % percentile intervals of R@k and MdR of each direction and of the RSUM.

    Whole items are drawn with replacement, each with all its queries in both directions: captions of one
    picture are no independent evidence. Candidates stay as they are.

    Returns:
        {"i2t R@1": {"low", "high"}, ..., "rsum": {"low", "high"}}; keys carry the directions' names.
    """
    items = max(int(direction.owners.max()) + 1 for direction in directions.values())
    random = np.random.default_rng(seed)
    draws = [_resampled(directions, random, items) for _ in range(resamples)]
    low, high = np.percentile([list(draw.values()) for draw in draws], [2.5, 97.5], axis=0)
    return {name: {"low": float(a), "high": float(b)} for name, a, b in zip(draws[0], low, high, strict=True)}


def _resampled(directions: Mapping[str, Direction], random: np.random.Generator, items: int) -> dict[str, float]:
    times = np.bincount(random.integers(items, size=items), minlength=items)
    values: dict[str, float] = {}
    for name, direction in directions.items():
        weights = times[direction.owners]  # (Q,)
        recalls = {f"{name} R@{k}": 100 * float(np.average(direction.ranks <= k, weights=weights)) for k in KS}
        values |= recalls | {f"{name} MdR": _median(direction.ranks, weights)}
    return values | {"rsum": sum(value for name, value in values.items() if "R@" in name)}


def _ranks(queries: Floats, candidates: Floats, query_owners: Ints, candidate_owners: Ints) -> Ints:
    """Rank of each query's best right candidate: 1 + wrong ones at least as similar (ties count against the model)."""
    ranks = np.empty(len(queries), np.int64)
    columns = candidates.T.astype(np.float64)  # (D, C)
    for block in _blocks(len(queries), len(candidates)):
        similarity = queries[block].astype(np.float64) @ columns  # (b, C)
        right = query_owners[block, None] == candidate_owners
        best = np.max(similarity, axis=1, where=right, initial=-np.inf)
        ranks[block] = 1 + np.count_nonzero((similarity >= best[:, None] - TIE) & ~right, axis=1)
    return ranks


def _blocks(queries: int, candidates: int) -> Iterator[slice]:
    size = max(1, BLOCK // candidates)
    return (slice(start, start + size) for start in range(0, queries, size))


def _check(items: Floats, texts: Floats, owners: Ints) -> None:
    if items.ndim != 2 or texts.ndim != 2 or items.shape[1] != texts.shape[1] or owners.shape != (len(texts),):
        raise ValueError(f"shapes do not fit: items {items.shape}, texts {texts.shape}, owners {owners.shape}")
    for name, embeddings in (("item", items), ("text", texts)):
        broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if len(broken):
            raise ValueError(f"{len(broken)} {name} embedding(s) not finite, the first in row {broken[0]}")
    if set(np.unique(owners)) != set(range(len(items))):
        raise ValueError(f"owners must name every one of the {len(items)} items at least once, and none beyond")


def _found_by(relevant: int, candidates: int) -> NDArray[np.float64]:
    """Probability that a random order has one of the right ones among its first 1 .. n."""
    drawn = np.arange(candidates)
    missed = np.cumprod(np.clip(candidates - relevant - drawn, 0, None) / (candidates - drawn), dtype=np.float64)
    return np.ones(candidates) - missed


def _median(values: NDArray[Any], weights: NDArray[Any]) -> float:
    """The weighted median: what `np.median` says of each value repeated `weights` times."""
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    lower, upper = np.searchsorted(share, 0.5 - 1e-9), np.searchsorted(share, 0.5 + 1e-9)
    return float(values[order[lower]] + values[order[upper]]) / 2
