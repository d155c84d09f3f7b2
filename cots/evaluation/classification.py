"""Zero-shot classification by prompts: an image or video belongs to the class whose prompts lie nearest to it.

The protocol of CLIP (arXiv:2103.00020, section 3.1.4) and of LAION's CLIP benchmark: the embedding of a class is the
mean of the unit embeddings of its name in every template, scaled to unit length again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cots.errors import BadInput
from cots.evaluation.bootstrap import TAILS, resample_counts
from cots.evaluation.class_metrics import CLASS_METRICS, RankedClasses, rank_classes
from cots.evaluation.embedding import embed_texts
from cots.evaluation.metrics import Doubles, Floats
from cots.models.dual_encoder import DualEncoder
from cots.rounding import rounded

PLACE = "{}"  # of the class in a template


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """The classes that an item can belong to.

    Attributes:
        names: C names.
        embeddings: (C, D) unit rows.
    """

    names: tuple[str, ...]
    embeddings: NDArray[np.float32]


def embed_classes(model: DualEncoder, names: Sequence[str], templates: Sequence[str], *, batch_size: int) -> Classes:
    """Embed each class as the mean of its prompts; ranks share the batches.

    Args:
        model: the encoders.
        names: of the classes.
        templates: prompts in which `PLACE` stands for the class.
        batch_size: prompts encoded at once.
    """
    prompts = [template.replace(PLACE, name) for name in names for template in templates]
    by_prompt = embed_texts(model, prompts, batch_size=batch_size).reshape(len(names), len(templates), -1)
    means = by_prompt.mean(axis=1)
    return Classes(names=tuple(names), embeddings=means / np.linalg.norm(means, axis=1, keepdims=True))


def class_names(values: Iterable[str | None]) -> list[str]:
    """The distinct classes of a column, sorted.

    Raises:
        BadInput: fewer than two.
    """
    names = sorted({value for value in values if value is not None})
    if len(names) < 2:
        raise BadInput(f"the column of the classes holds fewer than two classes ({', '.join(names)}): name another one")
    return names


def evaluate_classification(
    items: Floats, labels: Sequence[str | None], classes: Classes, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Scores of zero-shot classification with their 95 % intervals and chance levels.

    Args:
        items: (N, D) unit rows.
        labels: the class of each item; those without one are left out.
        classes: all candidates.
        resamples: draws of the bootstrap, of items with replacement.
        seed: of these draws.

    Returns:
        JSON-serializable; docs/evaluation.md has the schema.

    Raises:
        BadInput: no item has a class.
    """
    numbers = {name: number for number, name in enumerate(classes.names)}
    labelled = [row for row, label in enumerate(labels) if label is not None]
    if not labelled:
        raise BadInput("none of the items has a class: evaluate a split that has, or name another column")
    label_numbers = np.array([numbers[str(labels[row])] for row in labelled])
    ranked = rank_classes(items[labelled], classes.embeddings, label_numbers)
    random = np.random.default_rng(seed)
    draws = [_scores(ranked, resample_counts(random, len(labelled))) for _ in range(resamples)]
    lows, highs = np.percentile(draws, TAILS, axis=0)
    names = [metric.name for metric in CLASS_METRICS]
    intervals = [{"low": low, "high": high} for low, high in zip(lows.tolist(), highs.tolist(), strict=True)]
    metrics = dict(zip(names, _scores(ranked, np.ones(len(labelled))), strict=True)) | {
        "chance": {metric.name: metric.chance(ranked) for metric in CLASS_METRICS},
        "interval": dict(zip(names, intervals, strict=True)),
        "queries": {"items": len(labelled), "classes": len(classes.names)},
    }
    return dict(rounded(metrics))


def _scores(ranked: RankedClasses, counts: Doubles) -> list[float]:
    return [metric.score(ranked, counts) for metric in CLASS_METRICS]
