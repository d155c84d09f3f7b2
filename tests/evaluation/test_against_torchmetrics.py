"""Every score against an implementation that others wrote and keep."""

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


def told_by_torchmetrics(
    similarity: Doubles, right: np.ndarray[tuple[int, int], np.dtype[np.bool_]]
) -> dict[str, float]:
    """Scores of (Q, C) similarities.

    torchmetrics reckons in float32, leaves the order of ties open and passes over what is not above 0. So it is given
    places instead: 1 is the last, and of equally similar candidates the right ones come later. Its average precision
    divides by the right ones found, AP@R by all of them: the factor is its R-precision.
    """
    figures = []
    for row, wanted in zip(similarity, right, strict=True):
        places = np.empty(len(row))
        places[np.lexsort((~wanted, row))] = 1 + np.arange(len(row))
        preds, target, relevant = torch.from_numpy(places), torch.from_numpy(wanted), int(wanted.sum())
        precision = retrieval_average_precision(preds, target, top_k=relevant) * retrieval_r_precision(preds, target)
        hits = {f"R@{k}": 100 * float(retrieval_hit_rate(preds, target, top_k=k)) for k in (1, 5, 10)}
        rank = round(1 / float(retrieval_reciprocal_rank(preds, target)))
        figures.append(hits | {"mAP@R": 100 * float(precision), "rank": rank})
    means = {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}
    median = float(np.median([one["rank"] for one in figures]))
    return {name: means[name] for name in ("R@1", "R@5", "R@10", "mAP@R")} | {"MdR": median, "mean_rank": means["rank"]}


def agree(
    items: Doubles, texts: Doubles, owners: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> tuple[RankedQueries, ...]:
    similarity = np.array([[float(np.dot(item, text)) for text in texts] for item in items])
    right = np.arange(len(items))[:, None] == owners
    ways = rank_queries(items, texts, owners)
    for way, table, wanted in zip(ways, (similarity, similarity.T), (right, right.T), strict=True):
        assert summarize(way) == pytest.approx(told_by_torchmetrics(table, wanted), abs=1e-4)
    return ways


@pytest.mark.parametrize("counts", [[1], [7], [1, 1], [5] * 30, [4, 1, 9, 2, 1], [1, 40]])
def test_random_embeddings(counts: list[int]) -> None:
    random = np.random.default_rng(len(counts))
    owners = random.permutation(np.repeat(np.arange(len(counts)), counts))
    items = random.normal(size=(len(counts), 12))
    agree(items, items[owners] + 1.5 * random.normal(size=(len(owners), 12)), owners)


def test_exact_ties_everywhere() -> None:
    random = np.random.default_rng(0)
    owners = np.repeat(np.arange(25), 3)
    items, texts = (random.integers(-1, 2, (rows, 3)).astype(np.float64) for rows in (25, 75))
    agree(items, texts, owners)


def test_two_identical_pictures() -> None:
    random = np.random.default_rng(1)
    items = random.normal(size=(20, 16))
    items[11] = items[4]
    texts = items.repeat(2, axis=0) + 0.2 * random.normal(size=(40, 16))
    _, t2i = agree(items, texts, np.repeat(np.arange(20), 2))
    assert all(t2i.ranks[[8, 9, 22, 23]] >= 2)  # either picture stands before the other


def test_a_model_that_says_the_same_of_everything() -> None:
    owners = np.repeat(np.arange(6), 5)
    i2t, t2i = agree(np.ones((6, 2)), np.ones((30, 2)), owners)
    assert summarize(i2t)["R@10"] == summarize(t2i)["R@5"] == 0
