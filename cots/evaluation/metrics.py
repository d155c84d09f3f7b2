"""Ranks: where the right items stand in both directions of retrieval.

Items (pictures or clips) and texts share one space. `owners[j] = i` says that text j describes item i, so
`owners = [0, 0, 1, 1]` means that the first two texts describe the first item. Ranks start at 1; a wrong candidate
that is as similar as a right one stands before it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECALL_KS = (1, 5, 10)
BLOCK = 1 << 22  # similarities held at once: 32 MB of float64
TIE = 1e-12  # BLAS may add equal vectors up in two orders; far below what two float32 vectors can differ by

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RankedQueries:
    """One direction of retrieval: how every query fared, and what chance is reckoned from.

    Attributes:
        ranks: (Q,) rank of the best-placed right candidate.
        owners: (Q,) the item that each query is, or describes; queries of one item are resampled together.
        relevant: (Q,) right candidates of each query, R.
        candidates: how many were ranked.
        average_precision: (Q,) AP@R, 1/R sum_{i=1..R} P(i) right(i), P(i) precision of the first i; from 0 to 1.
    """

    ranks: Ints
    text_to_item: Ints
    relevant: Ints
    candidates: int
    average_precision: Doubles


def rank_queries(items: Floats, texts: Floats, owners: Ints) -> tuple[RankedQueries, RankedQueries]:
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
    right = np.einsum("md,md->m", items[owners], texts, dtype=np.float64, casting="same_kind")  # (M,)
    order = np.lexsort((-right, owners))  # texts by item, each item's most similar first
    nearest, item_ranks, text_ranks = _ranked(items, texts[order], owners[order], right[order])
    precision = _average_precision(nearest, owners[order], right[order])
    ranks = np.empty_like(text_ranks)
    ranks[order] = text_ranks
    return (
        RankedQueries(item_ranks, rows, captions, len(texts), precision),
        RankedQueries(ranks, owners, np.ones_like(owners), len(items), (ranks == 1).astype(np.float64)),
    )


def rank_queries_in_folds(
    items: Floats, texts: Floats, owners: Ints, folds: int
) -> list[tuple[RankedQueries, RankedQueries]]:
    """`retrieval` within each of several parts of consecutive items with their texts.

    Five folds of COCO's 5,000 test pictures are its "1K" protocol. Parts differ by one item at most.

    Args:
        items: (N, D) unit rows.
        texts: (M, D) unit rows.
        owners: (M,) as in `retrieval`.
        folds: from 1, the whole set, to N.

    Raises:
        ValueError: more folds than items, or what `retrieval` does not take.
    """
    if not 1 <= folds <= len(items):
        raise ValueError(f"{len(items)} items cannot be cut into {folds} folds")
    bounds = [len(items) * fold // folds for fold in range(folds + 1)]
    inside = [(start, stop, (start <= owners) & (owners < stop)) for start, stop in pairwise(bounds)]
    return [rank_queries(items[start:stop], texts[own], owners[own] - start) for start, stop, own in inside]


def recall_at_k(ranks: Ints, k: int) -> float:
    """Share of the queries with a right candidate among the first k, per cent."""
    return 100 * float(np.mean(ranks <= k))


def median_rank(ranks: Ints) -> float:
    """The middle rank; the mean of the middle two where their number is even."""
    return float(np.median(ranks))


def rsum(directions: Mapping[str, RankedQueries]) -> float:
    """The sum of R@1, R@5 and R@10 over both directions, per cent of 600."""
    return sum(recall_at_k(direction.ranks, k) for direction in directions.values() for k in RECALL_KS)


def weighted_median(ordered: NDArray[Any], weights: NDArray[Any]) -> float:
    """What `np.median` says of each value repeated `weights` times; the values ascend."""
    share = np.cumsum(weights) / weights.sum()
    lower, upper = np.searchsorted(share, 0.5 - 1e-9), np.searchsorted(share, 0.5 + 1e-9)
    return float(ordered[lower] + ordered[upper]) / 2


def _ranked(items: Floats, texts: Floats, owners: Ints, right: Doubles) -> tuple[Doubles, Ints, Ints]:
    """Both directions in one pass over the similarities, a block of items at a time.

    Args:
        items: (N, D).
        texts: (M, D), by item, each item's most similar first.
        owners: (M,) ascending.
        right: (M,) similarity of each text to its item.

    Returns:
        (N, K) the most similar wrong texts of each item, K the largest number of right ones; -inf where there are
        fewer wrong ones. (N,) rank of each item's best text. (M,) rank of each text's item.
    """
    firsts = np.searchsorted(owners, np.arange(len(items) + 1))  # (N + 1,): each item's texts begin here
    most = int(np.diff(firsts).max())
    nearest, item_ranks = np.empty((len(items), most)), np.empty(len(items), np.int64)
    text_ranks = np.ones(len(texts), np.int64)
    columns = texts.T.astype(np.float64)  # (D, M)
    for block in _blocks(len(items), len(texts)):
        similarity = items[block].astype(np.float64) @ columns  # (b, M)
        own = slice(firsts[block.start], firsts[block.stop])
        similarity[owners[own] - block.start, np.arange(own.start, own.stop)] = -np.inf
        best = right[firsts[block]][:, None]  # (b, 1)
        item_ranks[block] = 1 + np.count_nonzero(similarity >= best - TIE, axis=1)
        text_ranks += np.count_nonzero(similarity >= right - TIE, axis=0)
        similarity.partition(len(texts) - most, axis=1)
        nearest[block] = similarity[:, len(texts) - most :]
    return nearest, item_ranks, text_ranks


def _average_precision(nearest: Doubles, owners: Ints, right: Doubles) -> Doubles:
    """AP@R of each item from its `nearest` wrong texts and the similarities of its right ones, descending."""
    relevant = np.bincount(owners)
    number = 1 + np.arange(len(owners)) - (np.cumsum(relevant) - relevant)[owners]  # (M,): the n-th right one
    place = number + np.count_nonzero(nearest[owners] >= right[:, None] - TIE, axis=1)
    return np.bincount(owners, (place <= relevant[owners]) * number / place) / relevant


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, BLOCK // columns)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _check(items: Floats, texts: Floats, owners: Ints) -> None:
    if items.ndim != 2 or texts.ndim != 2 or items.shape[1] != texts.shape[1] or owners.shape != (len(texts),):
        raise ValueError(f"shapes do not fit: items {items.shape}, texts {texts.shape}, owners {owners.shape}")
    for name, embeddings in (("item", items), ("text", texts)):
        broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if len(broken):
            raise ValueError(f"{len(broken)} {name} embedding(s) not finite, the first in row {broken[0]}")
    if set(np.unique(owners)) != set(range(len(items))):
        raise ValueError(f"owners must name every one of the {len(items)} items at least once, and none beyond")
