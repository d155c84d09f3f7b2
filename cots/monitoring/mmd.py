"""Kernel two-sample test: whether two sets of embeddings could come from the same distribution."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cots.evaluation.metrics import Doubles

CHUNK = 256  # permutations per matrix product
EPSILON = 1e-12  # rounding error, absolute and relative to the largest value


class MmdTest(NamedTuple):
    """Result of a two-sample test.

    Attributes:
        mmd2: squared maximum mean discrepancy, unbiased: about 0 for equal distributions, above or below it, at most 2.
        p: fraction of random splits of the pooled rows with the same or a larger discrepancy; in (0, 1].
        bandwidth: of the kernel, in the unit of the rows.
    """

    mmd2: float
    p: float
    bandwidth: float


def mmd_test(ours: NDArray[np.floating], theirs: NDArray[np.floating], *, permutations: int, seed: int) -> MmdTest:
    """Maximum mean discrepancy of two samples, and how often chance alone gives the same or more.

        MMD² = mean over i != j of k(x_i, x_j) + mean over i != j of k(y_i, y_j) - 2 mean over i, j of k(x_i, y_j),
        k(a, b) = exp(-|a - b|² / (2 h²)),   h the median distance between two rows of the pool that differ
        p = (1 + #{permuted MMD² >= MMD²}) / (permutations + 1)

    Rows must be independent draws: use only one caption of each image. The order of rows does not matter.

    Args:
        ours: (M, D), M at least 2.
        theirs: (N, D), N at least 2.
        permutations: p cannot fall below 1 / (permutations + 1).
        seed: of the permutations.

    Raises:
        ValueError: fewer than two rows, different widths, or a value that is not finite.

    Source: Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012), section 3, eq. 3 and section 8 (median).
    """
    _check(ours, theirs)
    pool = np.concatenate([_sort(ours), _sort(theirs)]).astype(np.float64)
    squared_distances = _squared_distances(pool)
    distances = squared_distances[np.triu_indices(len(pool), 1)]
    distances = np.sqrt(distances[distances > EPSILON * squared_distances.max()])
    if not len(distances):  # every row is the same point
        return MmdTest(0.0, 1.0, 0.0)
    bandwidth = float(np.median(distances))
    kernel = np.exp(-squared_distances / (2 * bandwidth**2))
    np.fill_diagonal(kernel, 0)
    observed, *permuted = _discrepancies(kernel, _random_splits(len(ours), len(theirs), permutations, seed)).tolist()
    at_least_as_large = sum(value >= observed - EPSILON for value in permuted)
    return MmdTest(observed, (1 + at_least_as_large) / (permutations + 1), bandwidth)


def subsample(num_rows: int, *, max_rows: int, seed: int) -> NDArray[np.int64]:
    """Ascending indices of at most `max_rows` rows, drawn without replacement."""
    if num_rows <= max_rows:
        return np.arange(num_rows)
    return np.sort(np.random.default_rng(seed).choice(num_rows, size=max_rows, replace=False))


def _check(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> None:
    if ours.ndim != 2 or theirs.ndim != 2 or ours.shape[1] != theirs.shape[1] or min(len(ours), len(theirs)) < 2:
        raise ValueError(f"samples must be (M, D) and (N, D) with at least 2 rows, not {ours.shape} and {theirs.shape}")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("samples must be finite")


def _sort(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows sorted by value, so that permutations do not depend on their original order."""
    return np.asarray(rows[np.lexsort(rows.T[::-1])])


def _squared_distances(rows: Doubles) -> Doubles:
    centered = rows - rows.mean(axis=0)
    norms = (centered**2).sum(axis=1)
    return np.asarray(np.maximum(norms[:, None] + norms - 2 * centered @ centered.T, 0))


def _random_splits(ours: int, theirs: int, permutations: int, seed: int) -> NDArray[np.bool_]:
    """(1 + permutations, M + N) True for rows that count as ours: first the true split, then random ones."""
    random = np.random.default_rng(seed)
    is_ours = np.arange(ours + theirs) < ours
    return np.stack([is_ours, *(random.permutation(is_ours) for _ in range(permutations))])


def _discrepancies(kernel: Doubles, splits: NDArray[np.bool_]) -> Doubles:
    """MMD² of each split, from sums over the kernel with a zero diagonal.

    With z the indicator of ours, the sum within ours is z'Kz, and z'K1 the sum over all its rows; the rest follows.
    """
    row_sums, total = kernel.sum(axis=1), kernel.sum()
    ours = int(splits[0].sum())
    theirs = len(kernel) - ours
    values = []
    for start in range(0, len(splits), CHUNK):
        is_ours = splits[start : start + CHUNK].astype(np.float64)
        within_ours = ((is_ours @ kernel) * is_ours).sum(axis=1)
        across = is_ours @ row_sums - within_ours
        within_theirs = total - within_ours - 2 * across
        means = within_ours / (ours * (ours - 1)) + within_theirs / (theirs * (theirs - 1))
        values.append(means - 2 * across / (ours * theirs))
    return np.concatenate(values)
