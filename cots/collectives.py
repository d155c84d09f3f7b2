"""Collective operations on tensors over torch.distributed; with one process they change nothing."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from cots.distributed import rank, world_size


def all_gather_with_grad(rows: Tensor) -> Tensor:
    """The rows of all ranks, concatenated by rank; the gradient flows back to the rank that a row came from.

    Args:
        rows: (R, ...) of this rank; R may differ between ranks.

    Returns:
        (sum of R, ...), the same on every rank.
    """
    if world_size() == 1:
        return rows
    all_rows: Tensor = _AllGather.apply(rows)  # type: ignore[no-untyped-call]
    return all_rows


def all_reduce_sum(values: Tensor) -> Tensor:
    """The elementwise sum over all ranks."""
    if world_size() > 1:
        values = values.clone()
        td.all_reduce(values)
    return values


@torch.no_grad()
def all_reduce_gradients(module: nn.Module) -> None:
    """Sum gradients over all ranks; a parameter without gradient on every rank stays without.

    Gradients of sharded weights (DTensor) were summed in the backward pass.
    """
    parameters = [p for p in module.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    if world_size() == 1 or not parameters:
        return
    num_with_grad = all_reduce_sum(
        torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    )
    for bucket in _buckets(p for p, count in zip(parameters, num_with_grad.tolist(), strict=True) if count):
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        td.all_reduce(flat)
        for p, grad in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
            p.grad = torch.empty_like(p) if p.grad is None else p.grad  # in the layout of p, which AdamW presumes
            p.grad.copy_(grad.view_as(p))


@torch.no_grad()
def clip_grad_norm(module: nn.Module, max_norm: float) -> Tensor:
    """Scale all gradients together so that their norm is at most `max_norm`; sharded gradients (DTensor) included.

    Args:
        module: with the same gradients on every rank, or shards of them.
        max_norm: > 0.

    Returns:
        The norm before clipping, a scalar, the same on every rank.
    """
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    shards = [gradient.to_local() for gradient in gradients if isinstance(gradient, DTensor)]
    replicated = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    if not shards:
        norm = get_total_norm(replicated)
        clip_grads_with_norm_(module.parameters(), max_norm, norm)
        return norm
    squares = all_reduce_sum(get_total_norm(shards).square()) + get_total_norm(replicated).square().to(shards[0].device)
    norm = squares.sqrt()
    for gradient in (*shards, *replicated):
        gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


BUCKET_SIZE = 2**23  # elements per all-reduce; 32 MiB of float32


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET_SIZE:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401  torch's context
        counts = [torch.zeros((), dtype=torch.long, device=rows.device) for _ in range(world_size())]
        td.all_gather(counts, torch.tensor(len(rows), device=rows.device))
        sizes = [int(count) for count in counts]
        ctx.local_rows = slice(sum(sizes[: rank()]), sum(sizes[: rank() + 1]))
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))  # gloo and nccl gather tensors of equal size
        padded[: len(rows)] = rows
        padded_parts = [torch.empty_like(padded) for _ in range(world_size())]
        td.all_gather(padded_parts, padded)
        return torch.cat([part[:size] for part, size in zip(padded_parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        [gradient] = gradients
        gradient = gradient.contiguous()
        td.all_reduce(gradient)
        return gradient[ctx.local_rows]
