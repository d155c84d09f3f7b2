"""Gradients of a batch, in micro-batches."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from cots.collectives import all_reduce_gradients, all_reduce_sum
from cots.curves import loss_column
from cots.devices import autocast
from cots.distributed import local_slice
from cots.objectives.protocol import Batch, KeyFeatures, LossOutput, Objective

Metrics = dict[str, float]


def backward_batch(
    objective: Objective[Any], batch: Batch, *, grad_accum_steps: int
) -> tuple[KeyFeatures | None, dict[str, Tensor]]:
    """Add the gradients of a batch to the objective's parameters.

    Args:
        objective: to be trained.
        batch: on the objective's device.
        grad_accum_steps: number of micro-batches; activations of one are held at a time.

    Returns:
        The keys of the batch, and this rank's share of its losses, by column.
    """
    with autocast(batch.frames.device):
        keys: KeyFeatures | None = objective.compute_keys(
            batch, micro_batch_slices(len(batch.image_index), grad_accum_steps)
        )
    losses: dict[str, Tensor] = {}
    similarity: list[Tensor] = []
    num_queries = len(batch.image_index) if keys is None else _num_kept(keys)
    micro_batches = micro_batch_slices(num_queries, grad_accum_steps)
    for rows in micro_batches or [slice(0)]:  # a rank without queries still takes part in the collectives
        with autocast(batch.frames.device):
            output: LossOutput = objective(batch, keys, rows)
        output.loss.backward()  # type: ignore[no-untyped-call]
        if output.similarity is not None:
            similarity.append(output.similarity)
        for name, loss in {"total": output.loss.detach(), **output.losses}.items():
            column = loss_column(name)
            losses[column] = losses[column] + loss if column in losses else loss
    if keys is not None:
        keys = keys.with_similarity(similarity)
    all_reduce_gradients(objective)
    return keys, losses


def _num_kept(keys: KeyFeatures) -> int:
    """The number of this rank's pairs that the filter keeps."""
    return int(keys.keep_mask[local_slice(len(keys.keep_mask))].sum())


def sum_losses(losses: dict[str, Tensor]) -> Metrics:
    """The losses of the global batch: the sum of all ranks' shares. The first host-device sync of the losses."""
    names = sorted(losses)  # ranks may hold them in different orders
    sums = dict(zip(names, all_reduce_sum(torch.stack([losses[name].float() for name in names])).tolist(), strict=True))
    return {name: sums[name] for name in losses}


def micro_batch_slices(count: int, num_slices: int) -> list[slice]:
    """At most `num_slices` slices of nearly equal, non-zero length that cover 0 to `count`."""
    ends = sorted({round(number * count / num_slices) for number in range(num_slices + 1)})
    return [slice(*pair) for pair in pairwise(ends)]
