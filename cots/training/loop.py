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
from cots.data.batches import Arrays, TrainingBatches
from cots.dist import clip_gradients, gathered, own, rank, sum_gradients, summed, wait
from cots.errors import RunFailed
from cots.model import autocast, normalised
from cots.models.stream import compile_blocks
from cots.objectives.protocol import Batch, Keys, Objective, Outcome
from cots.training import checkpoint
from cots.training.pairs import PairLedger
from cots.training.schedule import warmup_cosine
from cots.training.sharding import restore, whole
from cots.training.utilisation import Utilisation

Row = dict[str, float]
T = TypeVar("T")


class Trained(NamedTuple):
    """What is left of a run besides the weights."""

    curves: list[Row]
    pairs: PairLedger


def train(
    objective: Objective[Any],
    optimizer: torch.optim.Optimizer,
    batches: TrainingBatches,
    *,
    config: TrainConfig,
    pixels: tuple[tuple[float, ...], tuple[float, ...]],
    saved: Path,
    fingerprint: str,
    report: Callable[[Row], None],
) -> Trained:
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
    curves: list[Row] = []
    pairs = PairLedger(int(batches.first_captions[-1]))
    start = 0
    if state := checkpoint.load(saved, fingerprint=fingerprint):
        restore(objective, optimizer, weights=state["objective"], moments=state["optimizer"])
        start, curves = state["step"], state["curves"]
        pairs.restore(state["pairs"])
    objective.train()
    utilisation = Utilisation(where)
    began, waited = time.perf_counter(), 0.0
    for step, (arrays, late) in zip(range(start, config.steps), waited_for(batches.starting(start)), strict=False):
        waited += late
        torch.manual_seed(hash((config.seed, step)) + rank())  # dropout too is a function of the step
        rate = config.learning_rate * warmup_cosine(step, warmup=config.warmup_steps, steps=config.steps)
        batch = to_device(arrays, pixels, where)
        with utilisation.counting() if step == start else nullcontext():
            keys, row = update(
                objective,
                optimizer,
                batch,
                rate=rate,
                max_grad_norm=config.max_grad_norm,
                parts=config.grad_accum_steps,
            )
        if step == start and config.torch_compile:  # torch.compile leaves alone what it has met while it was counted
            compile_blocks(objective)
        if keys is not None:
            pairs.note(gathered(batch.captions), keys)
        passed = time.perf_counter() - began
        speed = (step + 1 - start) / passed
        timing = {"pairs_per_second": speed * batches.batch, "utilisation": utilisation.at(speed)}
        timing["data_wait"] = waited / passed
        curves.append({"step": step} | row | {"learning_rate": rate} | timing)
        if not math.isfinite(curves[-1]["total"]):
            raise RunFailed(f"the loss is {curves[-1]['total']} at step {step}: lower the learning rate")
        report(curves[-1])
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            state = snapshot(step + 1, objective, optimizer, curves, pairs)
            if rank() == 0:
                checkpoint.save(saved, state, fingerprint=fingerprint)
    wait()  # for those that may still go on from the checkpoint
    saved.unlink(missing_ok=True)
    return Trained(curves, pairs)


def waited_for(items: Iterator[T]) -> Iterator[tuple[T, float]]:
    """Each item with the seconds that passed between asking for it and having it."""
    asked = time.perf_counter()
    for item in items:
        yield item, time.perf_counter() - asked
        asked = time.perf_counter()


def update(
    objective: Objective[Any],
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    rate: float,
    max_grad_norm: float,
    parts: int,
) -> tuple[Keys | None, Row]:
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
        group["lr"] = rate * group["scale"]
    with autocast(batch.frames.device):
        keys: Keys | None = objective.keys(batch, slices(len(batch.samples), parts))
    losses: dict[str, Tensor] = {}
    mine = len(batch.samples) if keys is None else int(keys.kept[own(len(keys.kept))].sum())
    similarity: list[Tensor] = []
    for rows in slices(mine, parts) or [slice(0)]:  # no process may stay away where the others meet
        with autocast(batch.frames.device):
            outcome: Outcome = objective(batch, keys, rows)
        outcome.total.backward()  # type: ignore[no-untyped-call]
        if outcome.similarity is not None:
            similarity.append(outcome.similarity)
        for name, loss in (("total", outcome.total.detach()), *outcome.losses.items()):
            losses[name] = losses[name] + loss if name in losses else loss
    if keys is not None:
        keys = keys.seen(similarity)
    sum_gradients(objective)
    clip_gradients(objective, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    objective.advance(keys)
    return keys, _summed(losses) | objective.figures(keys)


def _summed(losses: dict[str, Tensor]) -> Row:
    """The losses of the whole batch, from the shares of all processes; a GPU is waited for here, not before."""
    names = sorted(losses)  # which processes may hold in different orders
    whole = dict(zip(names, summed(torch.stack([losses[name].float() for name in names])).tolist(), strict=True))
    return {name: whole[name] for name in losses}


def slices(count: int, parts: int) -> list[slice]:
    """At most `parts` slices of nearly equal, non-zero length that cover 0 to `count`."""
    ends = sorted({round(part * count / parts) for part in range(parts + 1)})
    return [slice(*pair) for pair in pairwise(ends)]


def to_device(arrays: Arrays, pixels: tuple[tuple[float, ...], tuple[float, ...]], where: torch.device) -> Batch:
    """A batch as tensors, pixels normalised on the device."""
    frames = normalised(arrays.frames, mean=pixels[0], std=pixels[1], to=where)
    others = {name: torch.from_numpy(values) for name, values in arrays._asdict().items() if name != "frames"}
    return Batch(frames=frames, **{name: values.to(where) for name, values in others.items()})


def snapshot(
    step: int, objective: nn.Module, optimizer: torch.optim.Optimizer, curves: list[Row], pairs: PairLedger
) -> dict[str, Any]:
    """Everything that the next step depends on, for the first process; every process must ask for it."""
    return {
        "step": step,
        "objective": whole(objective.state_dict()),
        "optimizer": whole(optimizer.state_dict()),
        "curves": curves,
        "pairs": pairs.state(),
    }
