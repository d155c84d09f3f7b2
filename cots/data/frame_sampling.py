"""Frame sampling: one frame from each of several equally long segments of a video."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def segments(num_indices: int, num_segments: int) -> list[range]:
    """Cut the indices 0 to N - 1 into n equally long segments.

        segment s of n = [s N // n, (s + 1) N // n), one index at least

    If N >= n, each index belongs to one segment. Otherwise segments share an index: two indices in four segments are
    0, 0, 1, 1, so a short video repeats its frames evenly.

    Args:
        num_indices: N, at least 1.
        num_segments: n, at least 1.

    Source: segment sampling of TSN, arXiv:1608.00859, with one frame per segment.
    """
    bounds = [segment * num_indices // num_segments for segment in range(num_segments + 1)]
    return [range(start, max(start + 1, end)) for start, end in pairwise(bounds)]


def segment_centers(num_indices: int, num_segments: int) -> list[int]:
    """The middle index of each segment, always the same; every index once if there are fewer indices than segments."""
    return [segment[len(segment) // 2] for segment in segments(num_indices, min(num_indices, num_segments))]


def random_per_segment(uniform: NDArray[np.float64], num_indices: int) -> list[int]:
    """A random index from each segment, for training.

    Args:
        uniform: one number from [0, 1) for each segment.
        num_indices: of the sequence.
    """
    cut = segments(num_indices, len(uniform))
    return [segment[int(number * len(segment))] for number, segment in zip(uniform.tolist(), cut, strict=True)]
