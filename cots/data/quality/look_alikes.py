"""Finds images that look alike in linear time: only hashes that share half of their bits are compared."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

MAX_ALIKE_BITS = 2  # of 64: images look alike if their difference hashes differ in no more bits
HALVES = [np.uint64((0xFFFF << 16 * i) | (0xFFFF << 16 * j)) for i, j in combinations(range(4), 2)]
MAX_COMPARED = 2**21  # pairs of hashes in memory at a time: many images share bits, such as those of a white sky


class LookAlikes:
    """Tells which of some hashes differ from any of others in at most `MAX_ALIKE_BITS`; the others come in pieces.

    Two bits that differ lie in at most two of four parts of 16 bits, so hashes that look alike agree in at least one of
    the six pairs of parts. A table for each pair, sorted by its 32 bits, gives the few hashes to compare.

    Args:
        hashes: (H,) those to be found, in any order and with repeats.
    """

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self._hashes, self._counts = np.unique(hashes, return_counts=True)
        self._found = np.zeros(len(self._hashes), np.bool_)
        orders = [np.argsort(self._hashes & half) for half in HALVES]
        self._tables = [(half, self._hashes[order] & half, order) for half, order in zip(HALVES, orders, strict=True)]

    def compare(self, others: NDArray[np.uint64]) -> None:
        """Mark the hashes that look like one of these."""
        others = np.unique(others)
        for half, keys, order in self._tables:
            first = np.searchsorted(keys, others & half)
            number = np.searchsorted(keys, others & half, side="right") - first
            total = np.cumsum(number)
            cuts = np.searchsorted(total, np.arange(MAX_COMPARED, total[-1] if len(total) else 0, MAX_COMPARED))
            for block in np.split(np.arange(len(others)), cuts):
                self._compare(others[block], first[block], number[block], order)

    def count(self) -> int:
        """How many of the hashes, repeats included, look like one of all that they were compared with."""
        return int(self._counts[self._found].sum())

    def _compare(
        self, others: NDArray[np.uint64], first: NDArray[np.intp], number: NDArray[np.intp], order: NDArray[np.intp]
    ) -> None:
        """Compare each of the others with `number` hashes, from place `first` of their order on."""
        other = np.repeat(np.arange(len(others)), number)
        within = np.arange(len(other)) - np.repeat(np.cumsum(number) - number, number)
        rows = order[first[other] + within]
        self._found[rows[np.bitwise_count(self._hashes[rows] ^ others[other]) <= MAX_ALIKE_BITS]] = True
