"""One frame from each of several equal segments, for any number of frames and segments."""

from itertools import pairwise

import numpy as np
import pytest

from cots.data.frame_sampling import random_per_segment, segment_centers, segments

AWKWARD = [(1, 1), (1, 5), (2, 4), (3, 4), (5, 3), (6, 6), (7, 6), (8, 3), (13, 3), (100, 6), (6, 100), (2999, 1000)]


@pytest.mark.parametrize(("number", "parts"), AWKWARD)
def test_segments_cover_the_sequence_in_order_and_share_an_index_only_if_it_is_too_short(
    number: int, parts: int
) -> None:
    cut = segments(number, parts)
    indices = [index for segment in cut for index in segment]
    assert len(cut) == parts
    assert indices == sorted(indices)
    assert set(indices) == set(range(number))
    lengths = {len(segment) for segment in cut}
    assert max(lengths) - min(lengths) <= 1
    if number >= parts:
        assert all(before.stop == after.start for before, after in pairwise(cut))


def test_a_short_sequence_repeats_its_indices_evenly() -> None:
    assert [segment[0] for segment in segments(2, 4)] == [0, 0, 1, 1]
    assert [segment[0] for segment in segments(3, 7)] == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("number", [1, 2, 5, 6, 7, 100])
def test_centers_ascend_and_are_every_index_if_there_are_few(number: int) -> None:
    centers = segment_centers(number, 6)
    assert centers == sorted(set(centers))
    assert len(centers) == min(number, 6)
    assert 0 <= centers[0] <= centers[-1] < number


def test_centers_are_as_far_from_the_start_as_from_the_end() -> None:
    assert segment_centers(13, 3) == [2, 6, 10]
    assert segment_centers(1000, 2) == [250, 750]


@pytest.mark.parametrize(("number", "parts"), AWKWARD)
def test_each_index_is_drawn_from_its_own_segment(number: int, parts: int) -> None:
    for seed in range(5):
        drawn = random_per_segment(np.random.default_rng(seed).random(parts), number)
        assert all(index in segment for index, segment in zip(drawn, segments(number, parts), strict=True))


def test_every_index_is_drawn_about_as_often_as_its_neighbours() -> None:
    rng = np.random.default_rng(0)
    drawn = np.concatenate([random_per_segment(rng.random(3), 12) for _ in range(2000)])
    counts = np.bincount(drawn, minlength=12)
    assert counts.min() > 400  # 500 are expected of each
    assert counts.max() < 600
