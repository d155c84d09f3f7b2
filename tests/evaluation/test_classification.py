"""Zero-shot classification by prompts against slow references, enumerations, and test sets that are really drawn."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cots.errors import BadInput
from cots.evaluation.class_metrics import CLASS_METRICS, RankedClasses, rank_classes
from cots.evaluation.classification import Classes, class_names, embed_classes, evaluate_classification
from cots.models.dual_encoder import DualEncoder

NAMES = tuple("abcdefg")


def unit_rows(random: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rows = random.normal(size=(count, 5)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def scores_by_loops(items: np.ndarray, classes: np.ndarray, labels: list[int]) -> dict[str, float]:
    """The CLIP benchmark's three scores, item by item."""
    hits: dict[int, list[bool]] = {}
    first, five = 0, 0
    for item, label in zip(items, labels, strict=True):
        order = sorted(range(len(classes)), key=lambda number: -float(item @ classes[number]))
        first += order[0] == label
        five += label in order[:5]
        hits.setdefault(label, []).append(order[0] == label)
    recalls = [sum(of_class) / len(of_class) for of_class in hits.values()]
    return {
        "acc1": 100 * first / len(labels),
        "acc5": 100 * five / len(labels),
        "mean_per_class_recall": 100 * sum(recalls) / len(recalls),
    }


def test_scores_are_those_of_a_slow_reference_and_items_without_a_class_are_left_out() -> None:
    random = np.random.default_rng(0)
    items, classes = unit_rows(random, 40), unit_rows(random, 7)
    numbers = (random.integers(6, size=40) ** 2 // 6).tolist()  # unequal, and class g is not in the split
    labels = [None if row % 8 == 3 else NAMES[number] for row, number in enumerate(numbers)]
    kept = [row for row, label in enumerate(labels) if label]
    found = Classes(names=NAMES, embeddings=classes)
    metrics = evaluate_classification(items, labels, found, resamples=20, seed=0)
    expected = scores_by_loops(items[kept], classes, [numbers[row] for row in kept])
    assert len(set(expected.values())) == 3
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert metrics["queries"] == {"items": 35, "classes": 7}


@pytest.mark.parametrize("classes", [2, 6])
def test_chance_is_the_mean_over_all_orders_of_the_classes(classes: int) -> None:
    labels = np.array([0, 0, 0, 1])
    orders = np.array(list(itertools.permutations(range(1, classes + 1))))  # rank of each class
    for metric in CLASS_METRICS:
        scores = [
            metric.score(RankedClasses(ranks=ranks[labels], labels=labels, candidates=classes), np.ones(4))
            for ranks in orders
        ]
        chance = metric.chance(RankedClasses(ranks=orders[0][labels], labels=labels, candidates=classes))
        assert chance == pytest.approx(np.mean(scores)) == pytest.approx(100 * min(metric.k / classes, 1))


def test_classes_with_one_embedding_count_against_the_model() -> None:
    classes = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    assert rank_classes(np.eye(3, dtype=np.float32)[:2], classes, np.array([1, 2])).ranks.tolist() == [2, 1]


def test_intervals_are_those_of_test_sets_that_are_really_drawn() -> None:
    random = np.random.default_rng(1)
    items, classes = unit_rows(random, 12), unit_rows(random, 7)
    numbers = random.integers(3, size=12)
    found = Classes(names=NAMES, embeddings=classes)
    metrics = evaluate_classification(items, [NAMES[number] for number in numbers], found, resamples=25, seed=3)
    draws = np.random.default_rng(3)
    rows = [draws.integers(12, size=12) for _ in range(25)]
    scores = [scores_by_loops(items[drawn], classes, numbers[drawn].tolist()) for drawn in rows]
    for metric in CLASS_METRICS:
        low, high = np.percentile([of_draw[metric.name] for of_draw in scores], [2.5, 97.5])
        assert metrics["interval"][metric.name] == pytest.approx({"low": low, "high": high}, abs=1e-5)


def test_a_class_is_the_unit_mean_of_the_unit_embeddings_of_its_prompts(tiny_model: Path) -> None:
    model = DualEncoder.load(tiny_model)
    templates = ("a {} square", "{} & {}")
    found = embed_classes(model, ["red", "blue"], templates, batch_size=4)
    for name, embedding in zip(["red", "blue"], found.embeddings, strict=True):
        prompts = model.encode_texts([f"a {name} square", f"{name} & {name}"], batch_size=4)
        mean = (prompts[0] / np.linalg.norm(prompts[0]) + prompts[1] / np.linalg.norm(prompts[1])) / 2
        np.testing.assert_allclose(embedding, mean / np.linalg.norm(mean), atol=0.02)
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)


def test_a_column_without_classes_is_refused_in_one_line() -> None:
    assert class_names(["b", None, "a", "b"]) == ["a", "b"]
    for values in (["a", None, "a"], []):
        with pytest.raises(BadInput, match="fewer than two classes"):
            class_names(values)
    found = Classes(names=("a", "b"), embeddings=np.eye(2, dtype=np.float32))
    with pytest.raises(BadInput, match="none of the items has a class"):
        evaluate_classification(np.eye(2, dtype=np.float32), [None, None], found, resamples=1, seed=0)
