"""The loop: one for pre-training and fine-tuning, for COTS and its baselines."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from cots.config.training import TrainConfig
from cots.curves import TOTAL_LOSS, current_column, loss_column
from cots.data.loader import NumpyBatch, TrainLoader
from cots.devices import autocast
from cots.distributed import (
    all_gather_with_grad,
    all_reduce_gradients,
    all_reduce_sum,
    barrier,
    clip_grad_norm,
    local_slice,
    rank,
)
from cots.errors import RunFailed
from cots.models.encoder import compile_blocks
from cots.models.pixels import normalize_pixels
from cots.objectives.protocol import Batch, KeyFeatures, LossOutput, Objective
from cots.training import checkpoint
from cots.training.fsdp import full_state_dict, load_full_state
from cots.training.mfu import MfuMeter
from cots.training.pair_stats import PairStats
from cots.training.schedule import warmup_cosine

Metrics = dict[str, float]
T = TypeVar("T")


class TrainResult(NamedTuple):
    """What is left of a run besides the weights."""

    curves: list[Metrics]
    pairs: PairStats


def train(
    objective: Objective[Any],
    optimizer: torch.optim.Optimizer,
    loader: TrainLoader,
    *,
    config: TrainConfig,
    pixel_stats: tuple[tuple[float, ...], tuple[float, ...]],
    checkpoint_path: Path,
    fingerprint: str,
    on_step: Callable[[Metrics], None],
) -> TrainResult:
    """Train the objective's streams in place; a killed run goes on from its checkpoint and ends with the same weights.

    Args:
        objective: on its device.
        optimizer: over its parameters; each group's `scale` is a factor of the learning rate.
        batches: endless, a function of the step.
        config: the run's section; of its learning rate, steps and the like.
        pixels: mean and deviation by channel.
        saved: the checkpoint file; it is removed at the end.
        fingerprint: digest of parameters and inputs.
        report: called with each step's figures.

    Raises:
        RunFailed: the loss is no longer a number.
    """
    where = next(objective.parameters()).device
    curves: list[Metrics] = []
    pairs = PairStats(int(loader.caption_offsets[-1]))
    start = 0
    if state := checkpoint.load(checkpoint_path, fingerprint=fingerprint):
        load_full_state(objective, optimizer, weights=state["objective"], moments=state["optimizer"])
        start = state["step"]
        curves = [{current_column(name): value for name, value in row.items()} for row in state["curves"]]
        pairs.load_state_dict(state["pairs"])
    objective.train()
    utilisation = MfuMeter(where)
    began, waited = time.perf_counter(), 0.0
    for step, (arrays, late) in zip(
        range(start, config.steps), with_wait_seconds(loader.iter_from(start)), strict=False
    ):
        waited += late
        torch.manual_seed(hash((config.seed, step)) + rank())  # dropout too is a function of the step
        rate = config.learning_rate * warmup_cosine(step, warmup=config.warmup_steps, steps=config.steps)
        batch = to_device(arrays, pixel_stats, where)
        with utilisation.count_flops() if step == start else nullcontext():
            keys, row = train_step(
                objective,
                optimizer,
                batch,
                learning_rate=rate,
                max_grad_norm=config.max_grad_norm,
                grad_accum_steps=config.grad_accum_steps,
            )
        if step == start and config.torch_compile:  # torch.compile leaves alone what it has met while it was counted
            compile_blocks(objective)
        if keys is not None:
            pairs.update(all_gather_with_grad(batch.caption_index), keys)
        passed = time.perf_counter() - began
        speed = (step + 1 - start) / passed
        timing = {"pairs_per_second": speed * loader.batch_size, "utilisation": utilisation.mfu(speed)}
        timing["data_wait"] = waited / passed
        curves.append({"step": step} | row | {"learning_rate": rate} | timing)
        if not math.isfinite(row[TOTAL_LOSS]):
            raise RunFailed(f"the loss is {row[TOTAL_LOSS]} at step {step}: lower the learning rate")
        on_step(curves[-1])
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            state = checkpoint_state(step + 1, objective, optimizer, curves, pairs)
            if rank() == 0:
                checkpoint.save(checkpoint_path, state, fingerprint=fingerprint)
    barrier()  # for those that may still go on from the checkpoint
    checkpoint_path.unlink(missing_ok=True)
    return TrainResult(curves, pairs)


def with_wait_seconds(items: Iterator[T]) -> Iterator[tuple[T, float]]:
    """Each item with the seconds that passed between asking for it and having it."""
    asked = time.perf_counter()
    for item in items:
        yield item, time.perf_counter() - asked
        asked = time.perf_counter()


def train_step(
    objective: Objective[Any],
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    learning_rate: float,
    max_grad_norm: float,
    grad_accum_steps: int,
) -> tuple[KeyFeatures | None, Metrics]:
    """One training step: losses, gradients, weights, then queues and momentum.

    Args:
        objective: with the optimizer over its parameters.
        batch: on the objective's device.
        rate: learning rate of groups of scale 1.
        max_grad_norm: of all gradients together.
        parts: how many parts the batch is computed in; activations of one are held at a time.

    Returns:
        The batch's keys, and the figures of the step.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]
    with autocast(batch.frames.device):
        keys: KeyFeatures | None = objective.compute_keys(
            batch, micro_batch_slices(len(batch.image_index), grad_accum_steps)
        )
    losses: dict[str, Tensor] = {}
    mine = len(batch.image_index) if keys is None else int(keys.keep_mask[local_slice(len(keys.keep_mask))].sum())
    similarity: list[Tensor] = []
    for rows in micro_batch_slices(mine, grad_accum_steps) or [
        slice(0)
    ]:  # no process may stay away where the others meet
        with autocast(batch.frames.device):
            outcome: LossOutput = objective(batch, keys, rows)
        outcome.loss.backward()  # type: ignore[no-untyped-call]
        if outcome.similarity is not None:
            similarity.append(outcome.similarity)
        for name, loss in {"total": outcome.loss.detach(), **outcome.losses}.items():
            column = loss_column(name)
            losses[column] = losses[column] + loss if column in losses else loss
    if keys is not None:
        keys = keys.with_similarity(similarity)
    all_reduce_gradients(objective)
    clip_grad_norm(objective, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    objective.update_state(keys)
    return keys, _sum_losses(losses) | objective.metrics(keys)


def _sum_losses(losses: dict[str, Tensor]) -> Metrics:
    """The losses of the whole batch, from the shares of all processes; a GPU is waited for here, not before."""
    names = sorted(losses)  # which processes may hold in different orders
    whole = dict(
        zip(names, all_reduce_sum(torch.stack([losses[name].float() for name in names])).tolist(), strict=True)
    )
    return {name: whole[name] for name in losses}


def micro_batch_slices(count: int, num_slices: int) -> list[slice]:
    """At most `parts` slices of nearly equal, non-zero length that cover 0 to `count`."""
    ends = sorted({round(part * count / num_slices) for part in range(num_slices + 1)})
    return [slice(*pair) for pair in pairwise(ends)]


def to_device(
    arrays: NumpyBatch, pixel_stats: tuple[tuple[float, ...], tuple[float, ...]], device: torch.device
) -> Batch:
    """A batch as tensors, pixels normalised on the device."""
    frames = normalize_pixels(arrays.frames, mean=pixel_stats[0], std=pixel_stats[1], device=device)
    others = {name: torch.from_numpy(values) for name, values in arrays._asdict().items() if name != "frames"}
    return Batch(frames=frames, **{name: values.to(device) for name, values in others.items()})


def checkpoint_state(
    step: int, objective: nn.Module, optimizer: torch.optim.Optimizer, curves: list[Metrics], pairs: PairStats
) -> dict[str, Any]:
    """Everything that the next step depends on, for the first process; every process must ask for it."""
    return {
        "step": step,
        "objective": full_state_dict(objective.state_dict()),
        "optimizer": full_state_dict(optimizer.state_dict()),
        "curves": curves,
        "pairs": pairs.state_dict(),
    }
