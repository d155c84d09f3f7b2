"""Accuracy and macro F1 of a model's classification head, by image, by text and by both."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cots.evaluation.bootstrap import TAILS, resample_counts
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metrics import Doubles, Ints
from cots.models.dual_encoder import DualEncoder
from cots.rounding import rounded

HEAD_METRICS = {"accuracy": "Accuracy", "macro_f1": "Macro F1"}  # by name in metrics.json, the title for people
INPUTS = ("image", "text", "both")  # what the head is given


def evaluate_class_head(
    model: DualEncoder, split: EmbeddedSplit, labels: Sequence[str | None], *, resamples: int, seed: int
) -> dict[str, Any] | None:
    """Scores of the head in per cent, with 95 % intervals, and what the most frequent class would have.

    Args:
        model: with a classification head.
        split: embedded by it; an item's text is the mean of its captions' embeddings, so that each caption's logits
            count alike.
        labels: the class of each item; items without one, or with one that training did not have, are left out.
        resamples: draws of the bootstrap, of items with replacement.
        seed: of these draws.

    Returns:
        JSON-serializable; docs/evaluation.md has the schema. None if no item has a known class.
    """
    numbers = {name: number for number, name in enumerate(model.classes)}
    rows = [row for row, label in enumerate(labels) if label in numbers]
    if not rows:
        return None
    right = np.array([numbers[str(labels[row])] for row in rows])
    predicted = predict_classes(model, split.items, mean_texts(split))
    most_frequent = np.full(len(rows), np.bincount(right).argmax())
    random = np.random.default_rng(seed)
    draws = [resample_counts(random, len(rows)) for _ in range(resamples)]
    scores = {name: _with_intervals(right, classes[rows], draws) for name, classes in predicted.items()}
    once = np.ones(len(rows))
    return dict(
        rounded(
            scores
            | {"most_frequent": class_scores(right, most_frequent, once)}
            | {"queries": {"items": len(rows), "classes": len(numbers)}}
        )
    )


def predict_classes(model: DualEncoder, items: NDArray[np.float32], texts: NDArray[np.float32]) -> dict[str, Ints]:
    """By what the head is given, the number of the class that it finds most probable for each item, (N,).

    Args:
        model: with a classification head.
        items: (N, D) embeddings of images or videos; texts: (N, D) of their texts.
    """
    probabilities = (
        model.class_probabilities(items, None),
        model.class_probabilities(None, texts),
        model.class_probabilities(items, texts),
    )
    return {name: of_input.argmax(axis=1) for name, of_input in zip(INPUTS, probabilities, strict=True)}


def mean_texts(split: EmbeddedSplit) -> NDArray[np.float32]:
    """(N, D): for each item the mean of its captions' embeddings."""
    sums = np.zeros(split.items.shape, np.float32)
    np.add.at(sums, split.text_to_item, split.texts)
    counts = np.bincount(split.text_to_item, minlength=len(sums))
    return np.asarray(sums / counts[:, None], np.float32)


def class_scores(right: Ints, predicted: Ints, counts: Doubles) -> dict[str, float]:
    """Accuracy, and F1 as its mean over classes, in per cent, if item i is drawn counts[i] times.

        F1 of a class = 2 TP / (2 TP + FP + FN); the mean is over the classes that an item has or is given

    Args:
        right: (N,) number of each item's class.
        predicted: (N,) number of the class that it is given.
        counts: (N,), not all zero.
    """
    hits = np.bincount(right, counts * (right == predicted), minlength=int(max(right.max(), predicted.max())) + 1)
    occurs = np.bincount(right, counts, minlength=len(hits)) + np.bincount(predicted, counts, minlength=len(hits))
    f1 = 2 * hits[occurs > 0] / occurs[occurs > 0]
    return {"accuracy": 100 * float(hits.sum() / counts.sum()), "macro_f1": 100 * float(f1.mean())}


def _with_intervals(right: Ints, predicted: Ints, draws: Sequence[Doubles]) -> dict[str, Any]:
    resampled = [list(class_scores(right, predicted, counts).values()) for counts in draws]
    lows, highs = np.percentile(resampled, TAILS, axis=0).tolist()
    scores = class_scores(right, predicted, np.ones(len(right)))
    intervals = {name: {"low": low, "high": high} for name, low, high in zip(scores, lows, highs, strict=True)}
    return scores | {"interval": intervals}
