"""Whether two sets of embeddings could be draws of one distribution: the kernel two-sample test."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cots.evaluation.metrics import Doubles

CHUNK = 256  # permutations that are summed at once
DUST = 1e-12  # what is below it, or below that part of the largest, is rounding


class MmdTest(NamedTuple):
    """How far apart two samples are.

    Attributes:
        mmd2: the squared maximum mean discrepancy, unbiased: about 0 for equal distributions and slightly below it as
            often as above, 2 at most.
        p: the share of random divisions of the pooled rows that are as far apart; in (0, 1].
        bandwidth: of the kernel, in the rows' own unit.
    """

    mmd2: float
    p: float
    bandwidth: float


def mmd_test(ours: NDArray[np.floating], theirs: NDArray[np.floating], *, permutations: int, seed: int) -> MmdTest:
    """The maximum mean discrepancy of two samples, and how often chance alone gives as much.

        MMD² = mean over i != j of k(x_i, x_j) + mean over i != j of k(y_i, y_j) - 2 mean over i, j of k(x_i, y_j),
        k(a, b) = exp(-|a - b|² / (2 h²)),   h the median distance between two rows of the pool that differ
        p = (1 + #{permuted MMD² >= MMD²}) / (permutations + 1)

    Rows must be independent draws: of five captions of one picture take one. The same rows in another order give the
    same answer.

    Args:
        ours: (M, D), M at least 2.
        theirs: (N, D), N at least 2.
        permutations: p cannot fall below 1 / (permutations + 1).
        seed: of the permutations.

    Raises:
        ValueError: fewer than two rows, other widths, or a value that is not finite.

    Source: Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012), section 3, eq. 3 and section 8 (median).
    """
    _check(ours, theirs)
    pool = np.concatenate([_ordered(ours), _ordered(theirs)]).astype(np.float64)
    squares = _squared_distances(pool)
    apart = squares[np.triu_indices(len(pool), 1)]
    apart = np.sqrt(apart[apart > DUST * squares.max()])
    if not len(apart):  # every row is the same point
        return MmdTest(0.0, 1.0, 0.0)
    bandwidth = float(np.median(apart))
    kernel = np.exp(-squares / (2 * bandwidth**2))
    np.fill_diagonal(kernel, 0)
    observed, *drawn = _discrepancies(kernel, _divisions(len(ours), len(theirs), permutations, seed)).tolist()
    as_far = sum(value >= observed - DUST for value in drawn)
    return MmdTest(observed, (1 + as_far) / (permutations + 1), bandwidth)


def subsample(rows: int, *, most: int, seed: int) -> NDArray[np.int64]:
    """Numbers of at most `most` of the rows, drawn without replacement, rising."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, size=most, replace=False))


def _check(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> None:
    if ours.ndim != 2 or theirs.ndim != 2 or ours.shape[1] != theirs.shape[1] or min(len(ours), len(theirs)) < 2:
        raise ValueError(f"two samples are (M, D) and (N, D) with at least 2 rows, not {ours.shape} and {theirs.shape}")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("the samples must be finite")


def _ordered(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """The rows in the order of their values, so that permutations do not depend on how they came."""
    return np.asarray(rows[np.lexsort(rows.T[::-1])])


def _squared_distances(rows: Doubles) -> Doubles:
    centred = rows - rows.mean(axis=0)
    norms = (centred**2).sum(axis=1)
    return np.asarray(np.maximum(norms[:, None] + norms - 2 * centred @ centred.T, 0))


def _divisions(ours: int, theirs: int, permutations: int, seed: int) -> NDArray[np.bool_]:
    """(1 + permutations, M + N) which rows count as ours: first the true ones, then as many at random."""
    random = np.random.default_rng(seed)
    true = np.arange(ours + theirs) < ours
    return np.stack([true, *(random.permutation(true) for _ in range(permutations))])


def _discrepancies(kernel: Doubles, divisions: NDArray[np.bool_]) -> Doubles:
    """MMD² of each division, from sums over the kernel with an empty diagonal.

    With z the indicator of ours, the sum within ours is z'Kz and the sum over all its rows z'K1; the rest follows.
    """
    rows, total = kernel.sum(axis=1), kernel.sum()
    ours = int(divisions[0].sum())
    theirs = len(kernel) - ours
    found = []
    for start in range(0, len(divisions), CHUNK):
        chosen = divisions[start : start + CHUNK].astype(np.float64)
        within = ((chosen @ kernel) * chosen).sum(axis=1)
        across = chosen @ rows - within
        rest = total - within - 2 * across
        found.append(within / (ours * (ours - 1)) + rest / (theirs * (theirs - 1)) - 2 * across / (ours * theirs))
    return np.concatenate(found)
