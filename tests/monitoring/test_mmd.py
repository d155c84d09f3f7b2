"""The kernel two-sample test against loops, closed forms and its false positive rate."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cots.monitoring.mmd import mmd_test, subsample

Rows = NDArray[np.float64]


def normal(seed: int, rows: int, width: int = 8, shift: float = 0.0) -> Rows:
    return np.random.default_rng(seed).normal(shift, 1, (rows, width))


def by_loops(ours: Rows, theirs: Rows) -> tuple[float, float]:
    """MMD² and bandwidth, as the paper writes them."""
    pool = [*ours, *theirs]
    pairs = [(a, b) for i, a in enumerate(pool) for b in pool[i + 1 :]]
    bandwidth = float(np.median([d for a, b in pairs if (d := math.dist(a, b)) > 0]))

    def mean(pairs: list[tuple[Rows, Rows]]) -> float:
        return sum(math.exp(-(math.dist(a, b) ** 2) / (2 * bandwidth**2)) for a, b in pairs) / len(pairs)

    def within(rows: Rows) -> float:
        return mean([(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j])

    return within(ours) + within(theirs) - 2 * mean([(a, b) for a in ours for b in theirs]), bandwidth


@pytest.mark.parametrize(("ours", "theirs"), [(2, 2), (2, 7), (9, 2), (13, 8)])
def test_the_discrepancy_is_that_of_loops(ours: int, theirs: int) -> None:
    x, y = normal(ours, ours, 3), normal(100 + theirs, theirs, 3, shift=0.5)
    result = mmd_test(x, y, permutations=5, seed=0)
    assert (result.mmd2, result.bandwidth) == pytest.approx(by_loops(x, y), abs=1e-12)


def test_two_points_twice_have_a_closed_form() -> None:
    """Within each sample the kernel is 1, across samples exp(-1/2), since the only distance is the median."""
    x, y = np.zeros((2, 1)), np.full((2, 1), 3.0)
    result = mmd_test(x, y, permutations=99, seed=0)
    assert result.bandwidth == pytest.approx(3)
    assert result.mmd2 == pytest.approx(2 - 2 * math.exp(-0.5))


def test_equal_rows_have_no_discrepancy() -> None:
    assert mmd_test(np.ones((4, 3)), np.ones((6, 3)), permutations=9, seed=0) == (0.0, 1.0, 0.0)


def test_the_false_positive_rate_is_the_significance_level() -> None:
    """Under equal distributions P(p <= a) is a; 200 tests at a tenth lie within 20 +- 3 sqrt(18)."""
    p_values = [mmd_test(normal(2 * s, 30), normal(2 * s + 1, 20), permutations=99, seed=s).p for s in range(200)]
    assert 8 <= sum(p <= 0.1 for p in p_values) <= 32
    assert 0.4 < np.mean(p_values) < 0.6


def test_the_estimate_is_unbiased_for_equal_distributions() -> None:
    values = [mmd_test(normal(2 * s, 25), normal(2 * s + 1, 25), permutations=1, seed=0).mmd2 for s in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))
    assert min(values) < 0


@pytest.mark.parametrize("seed", range(5))
def test_a_shift_and_a_larger_variance_are_detected(seed: int) -> None:
    reference = normal(seed, 100)
    assert mmd_test(reference, normal(seed + 50, 100, shift=0.6), permutations=199, seed=seed).p == 1 / 200
    assert mmd_test(reference, 2 * normal(seed + 50, 100), permutations=199, seed=seed).p == 1 / 200


def test_the_order_of_rows_changes_nothing() -> None:
    x, y = normal(0, 40), normal(1, 30, shift=0.15)
    shuffle = np.random.default_rng(3).permutation
    assert mmd_test(x, y, permutations=99, seed=5) == mmd_test(shuffle(x), shuffle(y), permutations=99, seed=5)


def test_swapping_or_scaling_the_samples_keeps_the_discrepancy() -> None:
    x, y = normal(0, 40), normal(1, 30, shift=0.3)
    result = mmd_test(x, y, permutations=9, seed=0)
    assert mmd_test(y, x, permutations=9, seed=0).mmd2 == pytest.approx(result.mmd2)
    scaled = mmd_test(1000 * x + 7, 1000 * y + 7, permutations=9, seed=0)
    assert (scaled.mmd2, scaled.bandwidth) == pytest.approx((result.mmd2, 1000 * result.bandwidth))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(normal(0, 1), normal(0, 5)), (normal(0, 5), normal(0, 5, 4)), (normal(0, 5), np.full((5, 8), np.nan))],
)
def test_samples_that_cannot_be_compared_are_refused(ours: Rows, theirs: Rows) -> None:
    with pytest.raises(ValueError, match="samples"):
        mmd_test(ours, theirs, permutations=9, seed=0)


def test_a_subsample_is_reproducible_without_repeated_rows() -> None:
    rows = subsample(1000, max_rows=50, seed=4)
    assert len(set(rows.tolist())) == 50
    assert rows.tolist() == sorted(rows.tolist())
    assert rows.tolist() == subsample(1000, max_rows=50, seed=4).tolist()
    assert subsample(7, max_rows=50, seed=4).tolist() == list(range(7))
