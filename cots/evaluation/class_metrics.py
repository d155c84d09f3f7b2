"""The metrics of classification, one record each: scores, chance, intervals, tables and cards iterate over them."""

from dataclasses import dataclass

import numpy as np

from cots.evaluation.metrics import TIE, Doubles, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedClasses:
    """Items with the rank of their right class.

    Attributes:
        ranks: (N,) rank of each item's right class, from 1.
        labels: (N,) number of its right class.
        candidates: number of classes that were ranked.
    """

    ranks: Ints
    labels: Ints
    candidates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMetric:
    """A score in per cent: how often the right class is among the first k.

    Attributes:
        name: in metrics.json; that of the CLIP benchmark.
        title: for people.
        description: one sentence.
        k: number of classes that may be guessed.
        by_class: whether all classes count alike, however many items they have, instead of all items.
        hub_name: on model cards.
    """

    name: str
    title: str
    description: str
    k: int = 1
    by_class: bool = False
    hub_name: str

    def score(self, ranked: RankedClasses, counts: Doubles) -> float:
        """The metric if item i is drawn counts[i] times."""
        weights = counts
        if self.by_class:
            weights = counts / np.maximum(np.bincount(ranked.labels, counts), 1)[ranked.labels]
        return 100 * float(np.average(ranked.ranks <= self.k, weights=weights))

    def chance(self, ranked: RankedClasses) -> float:
        """Exact expected score if the classes were in random order."""
        return 100 * min(self.k / ranked.candidates, 1)


CLASS_METRICS = (
    ClassMetric(name="acc1", title="Top-1", description="Items whose right class ranks first.", hub_name="accuracy"),
    ClassMetric(
        name="acc5",
        title="Top-5",
        description="Items whose right class is among the first five.",
        k=5,
        hub_name="top_5_accuracy",
    ),
    ClassMetric(
        name="mean_per_class_recall",
        title="Mean per-class recall",
        description="Mean over classes of the top-1 accuracy of their items.",
        by_class=True,
        hub_name="mean_per_class_recall",
    ),
)


def rank_classes(items: Floats, classes: Floats, labels: Ints) -> RankedClasses:
    """Rank all classes for every item; ties count against the model.

    Args:
        items: (N, D) unit rows.
        classes: (C, D) unit rows.
        labels: (N,) row of each item's right class.
    """
    similarity = items.astype(np.float64) @ classes.T.astype(np.float64)  # (N, C)
    rows = np.arange(len(items))
    right = similarity[rows, labels]
    similarity[rows, labels] = -np.inf  # what is left are wrong classes
    ranks = 1 + np.count_nonzero(similarity >= right[:, None] - TIE, axis=1)
    return RankedClasses(ranks=ranks, labels=labels, candidates=len(classes))
