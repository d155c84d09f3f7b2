"""How probable it is that the first result of a text is its own item, from the score of that result.

A logistic curve (Platt, Probabilistic Outputs for Support Vector Machines, 1999, section 2.2). It is fitted on the
split that is evaluated, because it holds for one size of gallery: the more candidates, the more of them score high. Its
error is measured on items that it was not fitted on.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.metrics import Doubles, Ints, RankedQueries
from cots.index.embedding_index import EmbeddingIndex
from cots.rounding import rounded

FOLDS = 5
BINS = 10  # of equally many queries
MIN_QUERIES = 50  # with fewer, a bin has less than five


@dataclass(frozen=True, slots=True)
class Bin:
    """Queries of similar score.

    Attributes:
        low: lowest score; high: highest score.
        queries: their number.
        predicted: mean probability of their first results, fitted on other items.
        right: fraction of them whose first result is right.
    """

    low: float
    high: float
    queries: int
    predicted: float
    right: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """P(first result is right) = 1 / (1 + exp(-(intercept + slope * score))).

    Attributes:
        intercept: of the curve; slope: of the curve.
        bins: from low to high scores.
    """

    intercept: float
    slope: float
    bins: tuple[Bin, ...]

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1: mean difference between prediction and truth in a bin, over queries."""
        queries = sum(members.queries for members in self.bins)
        return sum(members.queries * abs(members.predicted - members.right) for members in self.bins) / queries

    def summary(self) -> dict[str, Any]:
        """The curve and its error, JSON-serializable; `ece` in per cent."""
        queries = sum(members.queries for members in self.bins)
        values = {"intercept": self.intercept, "slope": self.slope, "ece": 100 * self.error, "queries": queries}
        return dict(rounded(values))


def calibrate_texts(embedded: EmbeddedSplit, queries: RankedQueries) -> Calibration | None:
    """`calibrate` of all texts of a split as queries.

    Args:
        embedded: the split; queries: its texts, ranked.
    """
    scores, _ = EmbeddingIndex.build(embedded.items, "Flat").search(embedded.texts, 1)
    return calibrate(scores[:, 0], queries.ranks == 1, queries.query_to_item)


def calibrate(scores: NDArray[np.floating[Any]], right: NDArray[np.bool_], items: Ints) -> Calibration | None:
    """Fit the curve and measure its error.

    Args:
        scores: (Q,) of the first result of each query.
        right: (Q,) whether that result is right.
        items: (Q,) item of each query; the queries of one item are left out of the fit together.

    Returns:
        None if there are fewer than `MIN_QUERIES`, or fewer items than `FOLDS`.

    Source: Naeini, Cooper, Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015, for the
    error.
    """
    if len(scores) < MIN_QUERIES or len(np.unique(items)) < FOLDS:
        return None
    precise, predicted = scores.astype(np.float64), np.empty(len(scores))
    for fold in range(FOLDS):
        held_out = items % FOLDS == fold
        predicted[held_out] = probability(precise[held_out], *fit_logistic(precise[~held_out], right[~held_out]))
    intercept, slope = fit_logistic(precise, right)
    bins = [
        Bin(scores[rows[0]], scores[rows[-1]], len(rows), predicted[rows].mean(), right[rows].mean())
        for rows in np.array_split(np.argsort(scores, kind="stable"), BINS)
    ]
    return Calibration(intercept=intercept, slope=slope, bins=tuple(bins))


def probability(scores: Doubles, intercept: float, slope: float) -> Doubles:
    """(Q,) probabilities of scores by a logistic curve."""
    return np.asarray(1 / (1 + np.exp(-(intercept + slope * scores))))


def fit_logistic(scores: Doubles, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Intercept and slope of the most likely curve.

    Targets are Platt's, (r + 1) / (r + 2) and 1 / (w + 2) for r right and w wrong results instead of 1 and 0, so that
    scores that separate right from wrong results give a finite slope.
    """
    targets = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    mean, spread = float(scores.mean()), max(float(scores.std()), 1e-12)
    inputs, weights = (
        torch.from_numpy((scores - mean) / spread),
        torch.zeros(2, dtype=torch.float64, requires_grad=True),
    )
    optimizer = torch.optim.LBFGS([weights], max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = binary_cross_entropy_with_logits(weights[0] + weights[1] * inputs, torch.from_numpy(targets))
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    offset, slope = (weights.detach() / torch.tensor([1, spread])).tolist()
    return offset - slope * mean, slope
