"""Every metric against torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_hit_rate,
    retrieval_r_precision,
    retrieval_reciprocal_rank,
)

from cots.evaluation.metric_table import summarize
from cots.evaluation.metrics import Doubles, RankedQueries, rank_queries


def torchmetrics_scores(
    similarity: Doubles, right: np.ndarray[tuple[int, int], np.dtype[np.bool_]]
) -> dict[str, float]:
    """Scores of (Q, C) similarities.

    torchmetrics computes in float32, leaves the order of ties undefined and ignores scores that are not above 0.
    Therefore it gets the reversed ranks instead: 1 is the last candidate, and of equally similar candidates the right
    ones come last. Its average precision divides by the right candidates among the first R, AP@R by R: the factor is
    its R-precision.
    """
    scores = []
    for row, is_right in zip(similarity, right, strict=True):
        reversed_ranks = np.empty(len(row))
        reversed_ranks[np.lexsort((~is_right, row))] = 1 + np.arange(len(row))
        preds, target, relevant = torch.from_numpy(reversed_ranks), torch.from_numpy(is_right), int(is_right.sum())
        precision = retrieval_average_precision(preds, target, top_k=relevant) * retrieval_r_precision(preds, target)
        hits = {f"R@{k}": 100 * float(retrieval_hit_rate(preds, target, top_k=k)) for k in (1, 5, 10)}
        rank = round(1 / float(retrieval_reciprocal_rank(preds, target)))
        scores.append(hits | {"mAP@R": 100 * float(precision), "rank": rank})
    means = {name: float(np.mean([query[name] for query in scores])) for name in scores[0]}
    median = float(np.median([query["rank"] for query in scores]))
    return {name: means[name] for name in ("R@1", "R@5", "R@10", "mAP@R")} | {"MdR": median, "mean_rank": means["rank"]}


def check(
    items: Doubles, texts: Doubles, text_to_item: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> tuple[RankedQueries, ...]:
    """Both directions, after comparing their scores."""
    similarity = np.array([[float(np.dot(item, text)) for text in texts] for item in items])
    right = np.arange(len(items))[:, None] == text_to_item
    directions = rank_queries(items, texts, text_to_item)
    for queries, table, is_right in zip(directions, (similarity, similarity.T), (right, right.T), strict=True):
        assert summarize(queries) == pytest.approx(torchmetrics_scores(table, is_right), abs=1e-4)
    return directions


@pytest.mark.parametrize("counts", [[1], [7], [1, 1], [5] * 30, [4, 1, 9, 2, 1], [1, 40]])
def test_random_embeddings(counts: list[int]) -> None:
    random = np.random.default_rng(len(counts))
    text_to_item = random.permutation(np.repeat(np.arange(len(counts)), counts))
    items = random.normal(size=(len(counts), 12))
    check(items, items[text_to_item] + 1.5 * random.normal(size=(len(text_to_item), 12)), text_to_item)


def test_exact_ties_everywhere() -> None:
    random = np.random.default_rng(0)
    text_to_item = np.repeat(np.arange(25), 3)
    items, texts = (random.integers(-1, 2, (rows, 3)).astype(np.float64) for rows in (25, 75))
    check(items, texts, text_to_item)


def test_two_identical_images() -> None:
    random = np.random.default_rng(1)
    items = random.normal(size=(20, 16))
    items[11] = items[4]
    texts = items.repeat(2, axis=0) + 0.2 * random.normal(size=(40, 16))
    _, t2i = check(items, texts, np.repeat(np.arange(20), 2))
    assert all(t2i.ranks[[8, 9, 22, 23]] >= 2)  # either image ranks before the other


def test_a_model_with_the_same_embedding_for_everything() -> None:
    text_to_item = np.repeat(np.arange(6), 5)
    i2t, t2i = check(np.ones((6, 2)), np.ones((30, 2)), text_to_item)
    assert summarize(i2t)["R@10"] == summarize(t2i)["R@5"] == 0
