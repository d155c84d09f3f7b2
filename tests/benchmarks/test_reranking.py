"""Re-ranking against a slow reference, and with judges whose ranks can be told in advance."""

import numpy as np
import pytest

from benchmarks._single_stream.reranking import rerank
from cots.evaluation.metrics import Floats, Ints, rank_queries

TEXT_TO_ITEM = np.repeat(np.arange(12), [1, 3, 2, 1, 4, 1, 2, 2, 1, 5, 1, 1])


def embeddings(seed: int) -> tuple[Floats, Floats]:
    """Unit rows of 12 items and 24 texts, texts near their items but not always nearest."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(12, 5))
    texts = items[TEXT_TO_ITEM] + 1.5 * rng.normal(size=(24, 5))
    normalized = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (items, texts)]
    return normalized[0].astype(np.float32), normalized[1].astype(np.float32)


def perfect(pairs: Ints) -> Floats:
    return np.asarray(TEXT_TO_ITEM[pairs[:, 1]] == pairs[:, 0], np.float64)


def constant(pairs: Ints) -> Floats:
    return np.zeros(len(pairs))


def table(seed: int) -> Floats:
    """A score for each pair, with ties."""
    return np.random.default_rng(seed).integers(0, 6, (12, 24)).astype(float)


def slow_rank(similarity: Floats, judged: Floats, right: list[int], k: int) -> int:
    """One query's rank, by sorting: similarities and judgements of all candidates."""
    order = sorted(range(len(similarity)), key=lambda c: (-similarity[c], c in right))
    head, tail = order[:k], order[k:]
    head = sorted(head, key=lambda c: (-judged[c], c in right))
    return 1 + next(place for place, c in enumerate(head + tail) if c in right)


@pytest.mark.parametrize("k", [1, 2, 5, 11, 12])
@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_those_of_sorting_each_query_by_hand(seed: int, k: int) -> None:
    items, texts = embeddings(seed)
    judged, similarity = table(seed), items.astype(np.float64) @ texts.T.astype(np.float64)
    i2t, t2i = rerank(items, texts, TEXT_TO_ITEM, k=k, score=lambda pairs: judged[pairs[:, 0], pairs[:, 1]])
    own_texts = [np.flatnonzero(item == TEXT_TO_ITEM).tolist() for item in range(12)]
    assert i2t.tolist() == [slow_rank(similarity[item], judged[item], own_texts[item], k) for item in range(12)]
    assert t2i.tolist() == [
        slow_rank(similarity[:, text], judged[:, text], [int(TEXT_TO_ITEM[text])], k) for text in range(24)
    ]


@pytest.mark.parametrize("k", [1, 3, 12])
def test_a_perfect_judge_puts_every_right_candidate_that_it_sees_first_and_moves_no_other(k: int) -> None:
    items, texts = embeddings(0)
    before = [direction.ranks for direction in rank_queries(items, texts, TEXT_TO_ITEM)]
    for old, new in zip(before, rerank(items, texts, TEXT_TO_ITEM, k=k, score=perfect), strict=True):
        assert new.tolist() == np.where(old <= k, 1, old).tolist()


def test_a_constant_judge_puts_every_wrong_candidate_before_the_right_one() -> None:
    items, texts = embeddings(0)
    i2t, t2i = rerank(items, texts, TEXT_TO_ITEM, k=12, score=constant)
    assert t2i.tolist() == [12] * 24
    nearest = np.argsort(-items @ texts.T, axis=1)[:, :12]
    seen = (TEXT_TO_ITEM[nearest] == np.arange(12)[:, None]).sum(axis=1)
    assert i2t[seen > 0].tolist() == (1 + 12 - seen[seen > 0]).tolist()


def test_a_right_candidate_that_only_a_tie_lets_in_stays_outside() -> None:
    items = texts = np.ones((6, 1), np.float32)
    for ranks in rerank(items, texts, np.arange(6), k=3, score=lambda pairs: pairs[:, 0] == pairs[:, 1]):
        assert ranks.tolist() == [6] * 6


def test_the_judge_is_asked_once_about_each_pair_in_ascending_order() -> None:
    items, texts = embeddings(1)
    asked: list[Ints] = []

    def judge(pairs: Ints) -> Floats:
        asked.append(pairs)
        return constant(pairs)

    rerank(items, texts, TEXT_TO_ITEM, k=4, score=judge)
    (pairs,) = asked
    similarity = items @ texts.T
    by_item = {(i, int(j)) for i in range(12) for j in np.argsort(-similarity[i])[:4]}
    by_text = {(int(i), j) for j in range(24) for i in np.argsort(-similarity[:, j])[:4]}
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(by_item | by_text)


@pytest.mark.parametrize(
    ("k", "scores", "message"),
    [
        (0, constant, "k must be from 1 to the 24 items"),
        (13, constant, "k must be from 1 to the 12 items"),
        (2, lambda pairs: constant(pairs)[1:], "need as many scores"),
        (2, lambda pairs: np.where(pairs[:, 0] == 0, np.nan, 1.0), "scores are not finite"),
    ],
)
def test_what_cannot_be_ranked_is_refused_with_a_reason(k: int, scores: object, message: str) -> None:
    items, texts = embeddings(0)
    with pytest.raises(ValueError, match=message):
        rerank(items, texts, TEXT_TO_ITEM, k=k, score=scores)  # type: ignore[arg-type]
