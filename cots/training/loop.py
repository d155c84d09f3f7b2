"""The loop: one for pre-training and fine-tuning."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.utils import clip_grad_norm_

from cots.data.batches import Arrays, TrainingBatches
from cots.errors import RunFailed
from cots.model import autocast, normalised
from cots.objective import Batch, CotsObjective, Outcome
from cots.training import checkpoint
from cots.training.pairs import PairLedger
from cots.training.schedule import warmup_cosine

Row = dict[str, float]


class Recipe(NamedTuple):
    """How long and how fast to learn."""

    seed: int
    steps: int
    learning_rate: float
    warmup: int
    max_grad_norm: float
    checkpoint_every: int


class Trained(NamedTuple):
    """What is left of a run besides the weights."""

    curves: list[Row]
    pairs: PairLedger


def train(
    objective: CotsObjective,
    optimizer: torch.optim.Optimizer,
    batches: TrainingBatches,
    *,
    recipe: Recipe,
    pixels: tuple[tuple[float, ...], tuple[float, ...]],
    saved: Path,
    fingerprint: str,
    report: Callable[[Row], None],
) -> Trained:
    """Train the objective's streams in place; a killed run goes on from its checkpoint and ends with the same weights.

    Args:
        objective: on its device.
        optimizer: over its parameters.
        batches: endless, a function of the step.
        recipe: the numbers.
        pixels: mean and deviation by channel.
        saved: the checkpoint file; it is removed at the end.
        fingerprint: digest of parameters and inputs.
        report: called with each step's figures.

    Raises:
        RunFailed: the loss is no longer a number.
    """
    where = next(objective.parameters()).device
    curves: list[Row] = []
    pairs = PairLedger(int(batches.first_captions[-1]))
    start = 0
    if state := checkpoint.load(saved, fingerprint=fingerprint):
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        start, curves = state["step"], state["curves"]
        pairs.restore(state["pairs"])
    objective.train()
    began = time.perf_counter()
    for step, arrays in zip(range(start, recipe.steps), batches.starting(start), strict=False):
        torch.manual_seed(hash((recipe.seed, step)))  # dropout too is a function of the step
        rate = recipe.learning_rate * warmup_cosine(step, warmup=recipe.warmup, steps=recipe.steps)
        batch = to_device(arrays, pixels, where)
        outcome = update(objective, optimizer, batch, rate=rate, max_grad_norm=recipe.max_grad_norm)
        pairs.note(batch.captions, outcome.keys)
        speed = (step + 1 - start) * len(batch.samples) / (time.perf_counter() - began)
        curves.append(figures(step, outcome, objective, rate, speed))
        if not math.isfinite(curves[-1]["total"]):
            raise RunFailed(f"the loss is {curves[-1]['total']} at step {step}: lower the learning rate")
        report(curves[-1])
        if (step + 1) % recipe.checkpoint_every == 0 and step + 1 < recipe.steps:
            checkpoint.save(saved, snapshot(step + 1, objective, optimizer, curves, pairs), fingerprint=fingerprint)
    saved.unlink(missing_ok=True)
    return Trained(curves, pairs)


def update(
    objective: CotsObjective, optimizer: torch.optim.Optimizer, batch: Batch, *, rate: float, max_grad_norm: float
) -> Outcome:
    """One training step: losses, gradients, weights, then queues and momentum."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    with autocast(batch.frames.device):
        outcome: Outcome = objective(batch)
    outcome.total.backward()  # type: ignore[no-untyped-call]
    clip_grad_norm_(objective.parameters(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    objective.advance(outcome.keys)
    return outcome


def to_device(arrays: Arrays, pixels: tuple[tuple[float, ...], tuple[float, ...]], where: torch.device) -> Batch:
    """A batch as tensors, pixels normalised on the device."""
    frames = normalised(arrays.frames, mean=pixels[0], std=pixels[1], to=where)
    others = {name: torch.from_numpy(values) for name, values in arrays._asdict().items() if name != "frames"}
    return Batch(frames=frames, **{name: values.to(where) for name, values in others.items()})


def figures(step: int, outcome: Outcome, objective: CotsObjective, rate: float, speed: float) -> Row:
    """One row of the curves."""
    noise = objective.noise_filter
    return {
        "step": step,
        "total": float(outcome.total.detach()),
        **{name: float(loss) for name, loss in outcome.losses._asdict().items()},
        "kept": float(outcome.keys.kept.float().mean()),
        "mean": noise.mean,
        "sigma": noise.sigma,
        "threshold": noise.threshold if math.isfinite(noise.threshold) else -1.0,
        "learning_rate": rate,
        "pairs_per_second": speed,
    }


def snapshot(
    step: int, objective: CotsObjective, optimizer: torch.optim.Optimizer, curves: list[Row], pairs: PairLedger
) -> dict[str, Any]:
    """Everything that the next step depends on."""
    return {
        "step": step,
        "objective": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "curves": curves,
        "pairs": pairs.state(),
    }
