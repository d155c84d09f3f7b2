"""The score from which on a result fits a text."""

import numpy as np
import pytest

from cots.evaluation.fit_threshold import MAX_CAPTIONS_BELOW, MIN_CAPTIONS, NONSENSE, fit_threshold

CAPTIONS = np.linspace(0.5, 0.9, 200, dtype=np.float32)


def test_where_all_nonsense_is_far_below_no_caption_is_told_that_nothing_fits() -> None:
    nonsense = np.linspace(0.1, 0.3, len(NONSENSE), dtype=np.float32)
    fit = fit_threshold(CAPTIONS, nonsense)
    assert fit == {"min_score": pytest.approx(0.3), "captions": 0.0, "nonsense": 1.0}


def test_where_they_overlap_one_caption_in_ten_at_most_is_told_so() -> None:
    nonsense = np.linspace(0.2, 0.6, len(NONSENSE), dtype=np.float32)
    fit = fit_threshold(CAPTIONS, nonsense)
    assert fit
    assert fit["captions"] == pytest.approx(MAX_CAPTIONS_BELOW, abs=0.01)
    assert 0.75 < fit["nonsense"] < 0.9
    assert fit["min_score"] == pytest.approx(np.quantile(CAPTIONS, MAX_CAPTIONS_BELOW))


def test_without_enough_captions_or_a_difference_there_is_no_threshold() -> None:
    assert fit_threshold(CAPTIONS[: MIN_CAPTIONS - 1], CAPTIONS[:40] - 0.4) is None
    assert fit_threshold(CAPTIONS, CAPTIONS[::5]) is None
