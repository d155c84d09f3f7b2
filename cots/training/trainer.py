"""The training loop, for pre-training and fine-tuning, for COTS and the baselines."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cots.collectives import all_gather_with_grad, clip_grad_norm
from cots.config.training import TrainConfig
from cots.curves import GRAD_NORM, TOTAL_LOSS, current_column
from cots.data.loader import NumpyBatch, TrainLoader
from cots.distributed import barrier, rank
from cots.models.encoder import compile_blocks
from cots.models.pixels import normalize_pixels
from cots.objectives.protocol import Batch, KeyFeatures, Objective
from cots.training import checkpoint
from cots.training.fsdp import full_state_dict, load_full_state
from cots.training.gradients import Metrics, backward_batch, sum_losses
from cots.training.mfu import MfuMeter
from cots.training.monitor import Monitor
from cots.training.pair_stats import PairStats
from cots.training.require_finite import require_finite
from cots.training.schedule import warmup_cosine

T = TypeVar("T")


class TrainResult(NamedTuple):
    """Results of a run besides the trained weights."""

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
    monitor: Monitor,
    on_step: Callable[[Metrics], None],
) -> TrainResult:
    """Train the objective in place; a killed run resumes from its checkpoint and ends with the same weights.

    Args:
        objective: on its device.
        optimizer: over its parameters; each group's `scale` multiplies the learning rate.
        loader: endless; its batches are a function of the step.
        config: the section of the run.
        pixel_stats: mean and standard deviation by channel.
        checkpoint_path: the checkpoint file; after the last step it holds the finished run.
        fingerprint: digest of parameters and inputs.
        monitor: measures beside training.
        on_step: called with the metrics of each step.

    Raises:
        RunFailed: the loss or its gradient is not finite.
    """
    device = next(objective.parameters()).device
    pairs = PairStats(int(loader.caption_offsets[-1]))
    start, curves = resume(objective, optimizer, pairs, checkpoint_path, fingerprint=fingerprint)
    objective.train()
    meter = MfuMeter(device)
    started, wait_seconds = time.perf_counter(), 0.0
    for step, (arrays, waited) in zip(
        range(start, config.steps), with_wait_seconds(loader.iter_from(start)), strict=False
    ):
        wait_seconds += waited
        batch = to_device(arrays, pixel_stats, device)
        measured = monitor.before_step(step, batch)
        torch.manual_seed(hash((config.seed, step)) + rank())  # dropout too is a function of the step
        rate = config.learning_rate * warmup_cosine(step, warmup_steps=config.warmup_steps, steps=config.steps)
        with meter.count_flops() if step == start else nullcontext():
            keys, metrics = train_step(
                objective,
                optimizer,
                batch,
                learning_rate=rate,
                max_grad_norm=config.max_grad_norm,
                grad_accum_steps=config.grad_accum_steps,
            )
        if step == start and config.torch_compile:
            compile_blocks(objective)  # only now: torch.compile skips code that it first sees while FLOPs are counted
        if keys is not None:
            pairs.update(all_gather_with_grad(batch.caption_index), keys)
        elapsed = time.perf_counter() - started - monitor.seconds
        steps_per_second = (step + 1 - start) / elapsed
        timing = {"pairs_per_second": steps_per_second * loader.batch_size, "utilisation": meter.mfu(steps_per_second)}
        timing["data_wait"] = wait_seconds / elapsed
        curves.append({"step": step} | metrics | {"learning_rate": rate} | timing | measured)
        require_finite(step, loss=metrics[TOTAL_LOSS], gradient=metrics[GRAD_NORM])
        curves[-1] |= monitor.after_step(step)
        on_step(curves[-1])
        if checkpoint.is_due(step, every=config.checkpoint_every, steps=config.steps):
            state = checkpoint_state(step + 1, objective, optimizer, curves, pairs)
            if rank() == 0:
                checkpoint.save(checkpoint_path, state, fingerprint=fingerprint)
    barrier()  # a slower rank may still be loading the checkpoint that the first one removes next
    return TrainResult(curves, pairs)


def resume(
    objective: Objective[Any],
    optimizer: torch.optim.Optimizer,
    pairs: PairStats,
    checkpoint_path: Path,
    *,
    fingerprint: str,
) -> tuple[int, list[Metrics]]:
    """Load the checkpoint of an unfinished run, if there is one, in place; return the next step and the curves.

    Raises:
        BadInput: the ranks have different parameters, weights or data.
    """
    state = checkpoint.load_agreed(checkpoint_path, fingerprint=fingerprint)
    if not state:
        return 0, []
    load_full_state(objective, optimizer, weights=state["objective"], moments=state["optimizer"])
    pairs.load_state_dict(state["pairs"])
    curves = [{current_column(name): value for name, value in row.items()} for row in state["curves"]]
    return state["step"], curves


def with_wait_seconds(items: Iterator[T]) -> Iterator[tuple[T, float]]:
    """Each item with the seconds spent waiting for it."""
    requested = time.perf_counter()
    for item in items:
        yield item, time.perf_counter() - requested
        requested = time.perf_counter()


def train_step(
    objective: Objective[Any],
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    learning_rate: float,
    max_grad_norm: float,
    grad_accum_steps: int,
) -> tuple[KeyFeatures | None, Metrics]:
    """One training step: losses, gradients and weights, then queues and momentum encoders.

    Args:
        objective: to be trained.
        optimizer: over its parameters.
        batch: on the objective's device.
        learning_rate: of parameter groups of scale 1.
        max_grad_norm: of all gradients together.
        grad_accum_steps: number of micro-batches; activations of one are held at a time.

    Returns:
        The keys of the batch, and the metrics of the step.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]
    keys, losses = backward_batch(objective, batch, grad_accum_steps=grad_accum_steps)
    norm = clip_grad_norm(objective, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    objective.update_state(keys)
    return keys, sum_losses(losses) | objective.metrics(keys) | {GRAD_NORM: norm.item()}


def to_device(
    arrays: NumpyBatch, pixel_stats: tuple[tuple[float, ...], tuple[float, ...]], device: torch.device
) -> Batch:
    """A batch as tensors on the device, with normalized pixels or with frozen features."""

    def show(values: NDArray[Any]) -> Tensor:
        if values.dtype == np.uint8:
            return normalize_pixels(values, mean=pixel_stats[0], std=pixel_stats[1], device=device)
        return torch.from_numpy(values).to(device).float()

    frames = show(arrays.frames if arrays.frozen_features is None else arrays.frozen_features)
    other_frames = None if arrays.other_frames is None else show(arrays.other_frames)
    shown = {"frames", "frozen_features", "other_frames"}
    rest = {name: values for name, values in arrays._asdict().items() if name not in shown and values is not None}
    tensors = {name: torch.from_numpy(values).to(device) for name, values in rest.items()}
    return Batch(frames=frames, other_frames=other_frames, **tensors)


def checkpoint_state(
    step: int, objective: nn.Module, optimizer: torch.optim.Optimizer, curves: list[Metrics], pairs: PairStats
) -> dict[str, Any]:
    """Everything that the next step depends on, complete on rank 0 only; a collective that every rank must call."""
    return {
        "step": step,
        "objective": full_state_dict(objective.state_dict()),
        "optimizer": full_state_dict(optimizer.state_dict()),
        "curves": curves,
        "pairs": pairs.state_dict(),
    }
