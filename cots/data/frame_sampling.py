"""Which frames stand for a clip: one of each of equally long segments."""

from itertools import pairwise

import numpy as np


def segments(number: int, parts: int) -> list[range]:
    """A sequence cut into equal parts, in order of time.

        part p of n over N indices = [p N // n, (p + 1) N // n), one index at least

    Where there are as many indices as parts or more, each index belongs to one part. Where there are fewer, parts
    share an index: 2 indices in 4 parts are 0, 0, 1, 1, so a short clip repeats its frames evenly.

    Args:
        number: of indices (N), at least 1.
        parts: how many (n), at least 1.

    Source: segment sampling of TSN, arXiv:1608.00859, with one frame a segment.
    """
    bounds = [part * number // parts for part in range(parts + 1)]
    return [range(start, max(start + 1, end)) for start, end in pairwise(bounds)]


def segment_centers(number: int, parts: int) -> list[int]:
    """The middle index of each segment, for what must not vary; every index once where there are no more than parts."""
    return [segment[len(segment) // 2] for segment in segments(number, min(number, parts))]


def random_per_segment(rng: np.random.Generator, number: int, parts: int) -> list[int]:
    """An index drawn inside each segment, for training; as many as parts, whatever the length of the sequence."""
    return [int(rng.integers(segment.start, segment.stop)) for segment in segments(number, parts)]
