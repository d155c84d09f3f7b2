"""Shards of which batches read single samples: those of the last batches stay open."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class OpenShards(Generic[T]):
    """The shards of the last batches, twice as many as the latest one needs; each was opened once.

    Args:
        open_shard: opens a shard by its number.
    """

    def __init__(self, open_shard: Callable[[int], T]) -> None:
        self._open = open_shard
        self._opened: dict[int, T] = {}

    def select(self, numbers: NDArray[np.int64]) -> Mapping[int, T]:
        """The open shards by number, those with these numbers among them."""
        needed = np.unique(numbers).tolist()
        for number in needed:
            self._opened[number] = self._opened.pop(number) if number in self._opened else self._open(number)
        for number in [*self._opened][: -2 * len(needed)]:
            del self._opened[number]
        return self._opened
