"""Several processes as one: `torchrun` starts them, this file is all that the rest knows of them.

Without `torchrun` there is one process, everything here is the identity, and no caller branches.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as td
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

T = TypeVar("T")


def rank() -> int:
    """The number of this process, from 0; the first one writes files."""
    return td.get_rank() if td.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return td.get_world_size() if td.is_initialized() else 1


def barrier() -> None:
    """Go on when every process has come this far."""
    if world_size() > 1:
        td.barrier()


def local_slice(count: int) -> slice:
    """Which of `count` things are this process's."""
    return rank_slices(count)[rank()]


def rank_slices(count: int) -> list[slice]:
    """`count` things shared out: nearly as many to each process, in their order."""
    return [slice(count * one // world_size(), count * (one + 1) // world_size()) for one in range(world_size())]


def round_robin(things: Iterable[T]) -> Iterator[T]:
    """This process's share of things that are dealt out in turn, of which nobody knows how many there are."""
    return islice(things, rank(), None, world_size())


def gather_round_robin(mine: Sequence[T]) -> list[T]:
    """All that was dealt, in its order, from what each process made of its share; one result for each thing."""
    hands = all_gather_object(mine)
    return [hand[row] for row in range(max(map(len, hands))) for hand in hands if row < len(hand)]


def all_gather_object(mine: T) -> list[T]:
    """What each process has, in their order."""
    if world_size() == 1:
        return [mine]
    found: list[Any] = [None] * world_size()
    td.all_gather_object(found, mine)
    return found


def all_gather_with_grad(rows: Tensor) -> Tensor:
    """The rows of all processes, in their order; each may have another number. The gradient flows back to the owner.

    Args:
        rows: (R, ...) of this process.

    Returns:
        (sum of R, ...), the same in every process.
    """
    if world_size() == 1:
        return rows
    found: Tensor = _AllGather.apply(rows)  # type: ignore[no-untyped-call]
    return found


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum over all processes, elementwise."""
    if world_size() > 1:
        values = values.clone()
        td.all_reduce(values)
    return values


@torch.no_grad()
def all_reduce_gradients(module: nn.Module) -> None:
    """Let every process have the sum of all gradients; what no process has a gradient of stays without.

    Gradients of weights that are shared out have been summed by the backward pass.
    """
    parameters = [one for one in module.parameters() if one.requires_grad and not isinstance(one, DTensor)]
    if world_size() == 1 or not parameters:
        return
    having = all_reduce_sum(
        torch.tensor([float(one.grad is not None) for one in parameters], device=parameters[0].device)
    )
    for bucket in _buckets(one for one, any_has in zip(parameters, having.tolist(), strict=True) if any_has):
        flat = torch.cat([(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in bucket])
        td.all_reduce(flat)
        for one, grad in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
            one.grad = grad.view_as(one)


@torch.no_grad()
def clip_grad_norm(module: nn.Module, max_norm: float) -> Tensor:
    """Scale all gradients down together to this norm, if theirs is larger; of shared weights each process has a part.

    Args:
        module: with the same gradients in every process.
        max_norm: > 0.

    Returns:
        The norm before, a scalar, the same in every process.
    """
    gradients = [one.grad for one in module.parameters() if one.grad is not None]
    parts = [one.to_local() for one in gradients if isinstance(one, DTensor)]
    common = [one for one in gradients if not isinstance(one, DTensor)]
    if not parts:
        norm = get_total_norm(common)
        clip_grads_with_norm_(module.parameters(), max_norm, norm)
        return norm
    squares = all_reduce_sum(get_total_norm(parts).square()) + get_total_norm(common).square().to(parts[0].device)
    norm = squares.sqrt()
    for gradient in (*parts, *common):
        gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


BUCKET_SIZE = 2**23  # numbers sent at once; 32 MiB of float32


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for one in parameters:
        if bucket and sum(other.numel() for other in bucket) + one.numel() > BUCKET_SIZE:
            yield bucket
            bucket = []
        bucket.append(one)
    if bucket:
        yield bucket


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401  torch's context
        counts = [torch.zeros((), dtype=torch.long, device=rows.device) for _ in range(world_size())]
        td.all_gather(counts, torch.tensor(len(rows), device=rows.device))
        sizes = [int(count) for count in counts]
        ctx.own = slice(sum(sizes[: rank()]), sum(sizes[: rank() + 1]))
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))  # gloo and nccl send rows of one size
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in range(world_size())]
        td.all_gather(found, padded)
        return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        [gradient] = gradients
        gradient = gradient.contiguous()
        td.all_reduce(gradient)
        return gradient[ctx.own]
