"""Ranks of the right candidates in both directions of retrieval.

Items (images or videos) and texts share one embedding space. `text_to_item[j] = i` means that text j describes item i:
with `text_to_item = [0, 0, 1, 1]` the first two texts describe the first item. Ranks start at 1. Ties count against the
model: a wrong candidate that is as similar as a right one ranks before it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

RECALL_KS = (1, 5, 10)
BLOCK = 1 << 22  # similarities in memory at once: 32 MB of float64
TIE = 1e-12  # BLAS may add up equal vectors in two orders; far below the difference of two float32 vectors

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RankedQueries:
    """The queries of one direction with all that metrics and chance levels are computed from.

    Attributes:
        ranks: (Q,) rank of the best right candidate of each query.
        query_to_item: (Q,) the item that each query is or describes; queries of one item are resampled together.
        relevant: (Q,) number of right candidates of each query, R.
        candidates: number of candidates that were ranked.
        average_precision: (Q,) AP@R, 1/R sum_{i=1..R} P(i) right(i), P(i) precision of the first i; from 0 to 1.
        right_ranks: (P,) ranks of all right candidates, query after query, best first; P is the sum of R. None if
            they are unknown, as in query tables of release 0.1.
    """

    ranks: Ints
    query_to_item: Ints
    relevant: Ints
    candidates: int
    average_precision: Doubles
    right_ranks: Ints | None = None

    def select(self, chosen: NDArray[np.bool_]) -> Self:
        """Some of the queries, ranked among the same candidates; items are numbered anew.

        Args:
            chosen: (Q,) mask with at least one query.
        """
        of_chosen = np.repeat(chosen, self.relevant)
        return replace(
            self,
            ranks=self.ranks[chosen],
            query_to_item=np.unique(self.query_to_item[chosen], return_inverse=True)[1],
            relevant=self.relevant[chosen],
            average_precision=self.average_precision[chosen],
            right_ranks=None if self.right_ranks is None else self.right_ranks[of_chosen],
        )

    def sum_over_right(self, gain: Callable[[Ints], Doubles]) -> Doubles:
        """(Q,) sum of a function of the rank over all right candidates of each query.

        Raises:
            ValueError: the ranks of all right candidates are unknown.
        """
        if self.right_ranks is None:
            raise ValueError("only the rank of the best right candidate is known")
        query = np.repeat(np.arange(len(self.relevant)), self.relevant)
        return np.bincount(query, weights=gain(self.right_ranks)).astype(np.float64)


def rank_queries(items: Floats, texts: Floats, text_to_item: Ints) -> tuple[RankedQueries, RankedQueries]:
    """Rank all texts for every item, and all items for every text.

    Args:
        items: (N, D) unit rows.
        texts: (M, D) unit rows.
        text_to_item: (M,) row of the item that each text describes; every item has at least one text.

    Returns:
        Item to text, and text to item.

    Raises:
        ValueError: shapes that do not fit, an embedding that is not finite, an item without a text.
    """
    _check(items, texts, text_to_item)
    num_texts = np.bincount(text_to_item, minlength=len(items))
    right = np.einsum("md,md->m", items[text_to_item], texts, dtype=np.float64, casting="same_kind")  # (M,)
    order = np.lexsort((-right, text_to_item))  # texts by item, each item's most similar first
    right_ranks, text_ranks = _rank_both_ways(items, texts[order], text_to_item[order], right[order])
    best_ranks = right_ranks[np.cumsum(num_texts) - num_texts]
    precision = _average_precision(right_ranks, num_texts)
    ranks = np.empty_like(text_ranks)
    ranks[order] = text_ranks
    return (
        RankedQueries(best_ranks, np.arange(len(items)), num_texts, len(texts), precision, right_ranks),
        RankedQueries(
            ranks, text_to_item, np.ones_like(text_to_item), len(items), (ranks == 1).astype(np.float64), ranks
        ),
    )


def rank_across(queries: Floats, query_to_item: Ints, candidates: Floats, candidate_to_item: Ints) -> RankedQueries:
    """Rank all candidate texts for each query text; those that describe the query's item are right.

    Args:
        queries: (Q, D) unit rows; query_to_item: (Q,) the item that each describes, with at least one candidate.
        candidates: (C, D) unit rows; candidate_to_item: (C,).

    Raises:
        ValueError: a query has no right candidate.
    """
    if num_lost := np.count_nonzero(~np.isin(query_to_item, candidate_to_item)):
        raise ValueError(f"{num_lost} queries have no right candidate")
    columns = candidates.T.astype(np.float64)  # (D, C)
    ranks: list[Ints] = []
    for block in _blocks(len(queries), len(candidates)):
        similarity = queries[block].astype(np.float64) @ columns  # (b, C)
        for row, item in zip(similarity, query_to_item[block].tolist(), strict=True):
            is_right = candidate_to_item == item
            right, wrong = np.sort(row[is_right])[::-1], row[~is_right]
            before = np.array([np.count_nonzero(wrong >= value - TIE) for value in right])
            ranks.append(before + 1 + np.arange(len(right)))
    counts, right_ranks = np.array([len(found) for found in ranks]), np.concatenate(ranks)
    best, precision = np.array([found[0] for found in ranks]), _average_precision(right_ranks, counts)
    return RankedQueries(best, query_to_item, counts, len(candidates), precision, right_ranks)


def rank_queries_in_folds(
    items: Floats, texts: Floats, text_to_item: Ints, folds: int
) -> list[tuple[RankedQueries, RankedQueries]]:
    """`rank_queries` within each of several folds of consecutive items with their texts.

    Five folds of COCO's 5,000 test images are its "1K" protocol. The sizes of folds differ by one item at most.

    Args:
        items: (N, D) unit rows.
        texts: (M, D) unit rows.
        text_to_item: (M,) as in `rank_queries`.
        folds: from 1, the whole set, to N.

    Raises:
        ValueError: more folds than items, or what `rank_queries` refuses.
    """
    if not 1 <= folds <= len(items):
        raise ValueError(f"{len(items)} items cannot be split into {folds} folds")
    bounds = [len(items) * fold // folds for fold in range(folds + 1)]
    members = [(start, stop, (start <= text_to_item) & (text_to_item < stop)) for start, stop in pairwise(bounds)]
    return [
        rank_queries(items[start:stop], texts[in_fold], text_to_item[in_fold] - start)
        for start, stop, in_fold in members
    ]


def weighted_median(ordered: NDArray[Any], weights: NDArray[Any]) -> float:
    """`np.median` of ascending values, each repeated as often as its weight says."""
    cumulative = np.cumsum(weights) / weights.sum()
    lower, upper = np.searchsorted(cumulative, 0.5 - 1e-9), np.searchsorted(cumulative, 0.5 + 1e-9)
    return float(ordered[lower] + ordered[upper]) / 2


def _rank_both_ways(items: Floats, texts: Floats, text_to_item: Ints, right: Doubles) -> tuple[Ints, Ints]:
    """Ranks of both directions from one pass over the similarities, a block of items at a time.

    Args:
        items: (N, D).
        texts: (M, D), by item, each item's most similar first.
        text_to_item: (M,) ascending.
        right: (M,) similarity of each text to its item.

    Returns:
        (M,) rank of each text among all texts for its item, and (M,) rank of its item among all items for the text.
    """
    starts = np.searchsorted(text_to_item, np.arange(len(items) + 1))  # (N + 1,): where each item's texts begin
    right_ranks, text_ranks = _count_within_items(np.diff(starts)), np.ones(len(texts), np.int64)
    columns = texts.T.astype(np.float64)  # (D, M)
    for block in _blocks(len(items), len(texts)):
        similarity = items[block].astype(np.float64) @ columns  # (b, M)
        block_texts = np.arange(starts[block.start], starts[block.stop])  # texts of the block's items
        rows = text_to_item[block_texts] - block.start
        similarity[rows, block_texts] = -np.inf  # what is left are wrong pairs
        text_ranks += np.count_nonzero(similarity >= right - TIE, axis=0)
        for row, text in zip(rows.tolist(), block_texts.tolist(), strict=True):
            right_ranks[text] += np.count_nonzero(similarity[row] >= right[text] - TIE)
    return right_ranks, text_ranks


def _average_precision(right_ranks: Ints, num_texts: Ints) -> Doubles:
    """(N,) AP@R of each item from the ranks (M,) of its texts, ascending within each item."""
    item = np.repeat(np.arange(len(num_texts)), num_texts)
    precision = _count_within_items(num_texts) / right_ranks
    return np.bincount(item, (right_ranks <= num_texts[item]) * precision) / num_texts


def _count_within_items(num_texts: Ints) -> Ints:
    """(M,) 1, 2, ... for the texts of each item."""
    starts = np.cumsum(num_texts) - num_texts
    return 1 + np.arange(num_texts.sum()) - np.repeat(starts, num_texts)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, BLOCK // columns)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _check(items: Floats, texts: Floats, text_to_item: Ints) -> None:
    if items.ndim != 2 or texts.ndim != 2 or items.shape[1] != texts.shape[1] or text_to_item.shape != (len(texts),):
        raise ValueError(
            f"shapes do not fit: items {items.shape}, texts {texts.shape}, text_to_item {text_to_item.shape}"
        )
    for name, embeddings in (("item", items), ("text", texts)):
        broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if len(broken):
            raise ValueError(f"{len(broken)} {name} embedding(s) not finite, the first in row {broken[0]}")
    if set(np.unique(text_to_item)) != set(range(len(items))):
        raise ValueError(f"text_to_item must name each of the {len(items)} items at least once, and no others")
