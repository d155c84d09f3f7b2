"""Re-ranking: the nearest candidates of each query are ordered again by a more expensive model of pairs."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cots.evaluation.metrics import Floats, Ints, rank_queries
from cots.index.embedding_index import EmbeddingIndex

PairScorer = Callable[[Ints], Floats]


def rerank(items: Floats, texts: Floats, text_to_item: Ints, *, k: int, score: PairScorer) -> tuple[Ints, Ints]:
    """Ranks in both directions after the k nearest candidates of each query were ordered by another score.

    Among these k only that score counts; on a tie the wrong candidate is first. A right candidate that is not
    among the k keeps its rank by the embeddings.

    Args:
        items: (N, D) unit rows.
        texts: (M, D) unit rows.
        text_to_item: (M,) row of the item that each text describes; every item has at least one text.
        k: candidates scored for each query, from 1 to N.
        score: maps (P, 2) rows of item and text, ascending and each once, to (P,) scores, higher is better. It is
            called once, with the candidates of both directions.

    Returns:
        (N,) rank of each item's best-placed text, and (M,) rank of each text's item; ranks start at 1.

    Raises:
        ValueError: k is out of range, scores are too few or not finite, or the inputs do not fit each other.
    """
    i2t, t2i = rank_queries(items, texts, text_to_item)
    near_texts, near_items = _nearest(items, texts, k), _nearest(texts, items, k)
    item_rows, text_rows = np.arange(len(items))[:, None], np.arange(len(texts))[:, None]
    pair_numbers = [
        (item_rows * len(texts) + near_texts),
        (near_items * len(texts) + text_rows),
    ]  # one number for each pair
    numbers = np.unique(np.concatenate([part.ravel() for part in pair_numbers]))
    scores = np.asarray(score(np.stack(np.divmod(numbers, len(texts)), axis=1)))
    if scores.shape != numbers.shape:
        raise ValueError(f"{len(numbers)} pairs need as many scores, not {scores.shape}")
    if broken := np.count_nonzero(~np.isfinite(scores)):
        raise ValueError(f"{broken} of {len(scores)} scores are not finite")
    by_item, by_text = (scores[np.searchsorted(numbers, part)] for part in pair_numbers)
    return (
        _new_ranks(i2t.ranks, by_item, text_to_item[near_texts] == item_rows),
        _new_ranks(t2i.ranks, by_text, near_items == text_to_item[:, None]),
    )


def _nearest(queries: Floats, candidates: Floats, k: int) -> Ints:
    index = EmbeddingIndex.build(np.asarray(candidates, np.float32), "Flat")
    return index.search(np.asarray(queries, np.float32), k)[1]


def _new_ranks(ranks: Ints, scores: Floats, right: NDArray[np.bool_]) -> Ints:
    """(Q,) ranks after re-ranking.

    Args:
        ranks: (Q,) by the embeddings.
        scores: (Q, k) of the nearest candidates.
        right: (Q, k) bool, True where such a candidate is right.
    """
    k = scores.shape[1]
    best = np.max(scores, axis=1, where=right, initial=-np.inf)
    reranked = 1 + np.count_nonzero((scores >= best[:, None]) & ~right, axis=1)
    # Among equally similar candidates an index may return the right one; a rank counts the wrong ones first.
    reached = right.any(axis=1) & (ranks <= k)
    return np.asarray(np.where(reached, reranked, np.maximum(ranks, k + 1)), np.int64)
