"""Thin wrapper over torch.distributed; a no-op with one process, so that callers never branch."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from torch import distributed as td

T = TypeVar("T")


def rank() -> int:
    """Rank of this process, from 0; rank 0 writes files."""
    return td.get_rank() if td.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return td.get_world_size() if td.is_initialized() else 1


def barrier() -> None:
    """Wait until every rank has reached this point."""
    if world_size() > 1:
        td.barrier()


def local_slice(count: int) -> slice:
    """This rank's slice of `count` items."""
    return rank_slices(count)[rank()]


def rank_slices(count: int) -> list[slice]:
    """Contiguous slices of `count` items, one per rank, of nearly equal length."""
    size = world_size()
    return [slice(count * index // size, count * (index + 1) // size) for index in range(size)]


def round_robin(items: Iterable[T]) -> Iterator[T]:
    """Every `world_size()`-th item, starting at this rank; the number of items need not be known."""
    return islice(items, rank(), None, world_size())


def gather_round_robin(results: Sequence[T]) -> list[T]:
    """The results of all ranks in the order of the items that `round_robin` dealt; one result per item."""
    by_rank = all_gather_object(results)
    return [part[row] for row in range(max(map(len, by_rank))) for part in by_rank if row < len(part)]


def all_gather_object(value: T) -> list[T]:
    """The values of all ranks, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    td.all_gather_object(values, value)
    return values


def broadcast_object(value: T) -> T:
    """Rank 0's value, on every rank."""
    values = [value]
    if world_size() > 1:
        td.broadcast_object_list(values)
    return values[0]
