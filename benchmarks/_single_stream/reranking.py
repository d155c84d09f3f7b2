"""Re-ranking: each query's nearest candidates, put in a new order by a dearer judge of pairs."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cots.evaluation.metrics import Floats, Ints, rank_queries
from cots.index.embedding_index import EmbeddingIndex

PairScorer = Callable[[Ints], Floats]


def rerank(items: Floats, texts: Floats, owners: Ints, *, k: int, score: PairScorer) -> tuple[Ints, Ints]:
    """Ranks in both directions after a judge has put the k nearest candidates of each query in its own order.

    Only the judge's scores count within the k; a tie puts the wrong candidate first. A right candidate that is not
    among the k keeps the place that the embeddings give it.

    Args:
        items: (N, D) unit rows.
        texts: (M, D) unit rows.
        owners: (M,) row of the item that each text describes; every item owns at least one text.
        k: candidates judged a query, from 1 to N.
        score: the judge: (P, 2) rows of item and text, ascending and each once, to (P,) scores, higher is better. It
            is called once, with the candidates of both directions.

    Returns:
        (N,) rank of each item's best-placed text, and (M,) rank of each text's item; ranks start at 1.

    Raises:
        ValueError: k out of range, scores that are too few or not finite, or what `retrieval` does not take.
    """
    i2t, t2i = rank_queries(items, texts, owners)
    near_texts, near_items = _nearest(items, texts, k), _nearest(texts, items, k)
    own_items, own_texts = np.arange(len(items))[:, None], np.arange(len(texts))[:, None]
    wanted = [(own_items * len(texts) + near_texts), (near_items * len(texts) + own_texts)]  # one number a pair
    numbers = np.unique(np.concatenate([part.ravel() for part in wanted]))
    scores = np.asarray(score(np.stack(np.divmod(numbers, len(texts)), axis=1)))
    if scores.shape != numbers.shape:
        raise ValueError(f"{len(numbers)} pairs need as many scores, not {scores.shape}")
    if broken := np.count_nonzero(~np.isfinite(scores)):
        raise ValueError(f"{broken} of {len(scores)} scores are not finite")
    by_item, by_text = (scores[np.searchsorted(numbers, part)] for part in wanted)
    return (
        _new_ranks(i2t.ranks, by_item, owners[near_texts] == own_items),
        _new_ranks(t2i.ranks, by_text, near_items == owners[:, None]),
    )


def _nearest(queries: Floats, candidates: Floats, k: int) -> Ints:
    index = EmbeddingIndex.build(np.asarray(candidates, np.float32), "Flat")
    return index.search(np.asarray(queries, np.float32), k)[1]


def _new_ranks(ranks: Ints, scores: Floats, right: NDArray[np.bool_]) -> Ints:
    """(Q,) ranks after re-ranking.

    Args:
        ranks: (Q,) by the embeddings.
        scores: (Q, k) of the nearest candidates.
        right: (Q, k) bool, which of these are right.
    """
    k = scores.shape[1]
    best = np.max(scores, axis=1, where=right, initial=-np.inf)
    reranked = 1 + np.count_nonzero((scores >= best[:, None]) & ~right, axis=1)
    # An index may prefer the right one of equally similar candidates; a rank counts them against the model.
    reached = right.any(axis=1) & (ranks <= k)
    return np.asarray(np.where(reached, reranked, np.maximum(ranks, k + 1)), np.int64)
