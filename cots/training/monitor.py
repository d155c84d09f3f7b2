"""Optional measurements during training: gradient norms by level, and retrieval on the validation split."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import get_total_norm

from cots.config.training import TrainConfig
from cots.models.encoder import Encoder
from cots.objectives.protocol import Batch, Objective
from cots.training.gradients import Metrics, backward_batch


class Monitor:
    """Measures at some steps of a run, without changing its weights, state or random numbers.

    Args:
        objective: the objective in training.
        config: the run's section of params.yaml, with the intervals.
        validate: gives the scores of the current weights on the validation split, by column.

    Attributes:
        seconds: total time of the measurements.
    """

    def __init__(self, objective: Objective[Any], config: TrainConfig, validate: Callable[[], Metrics]) -> None:
        self.objective, self.config, self.validate = objective, config, validate
        self.seconds = 0.0

    def before_step(self, step: int, batch: Batch) -> Metrics:
        """Norms of each level's weighted gradient in each backbone, every `grad_norms_every` steps."""
        every = self.config.grad_norms_every
        if not every or step % every:
            return {}
        with self._timed():
            return grad_norms(self.objective, batch, grad_accum_steps=self.config.grad_accum_steps)

    def after_step(self, step: int) -> Metrics:
        """Retrieval on the validation split, every `validate_every` steps and after the last step."""
        every = self.config.validate_every
        if not every or ((step + 1) % every and step + 1 < self.config.steps):
            return {}
        with self._timed():
            scores = self.validate()
        self.objective.train()
        return scores

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


def grad_norms(objective: Objective[Any], batch: Batch, *, grad_accum_steps: int) -> Metrics:
    """Norms of the weighted gradients of a batch, by level and backbone.

    Args:
        objective: has no gradients, neither before nor afterwards.
        batch: on the objective's device.
        grad_accum_steps: number of micro-batches.

    Returns:
        By column, such as `grad_norm/token/image`: the norm over the backbone's trained weights.
    """
    norms: Metrics = {}
    with torch.random.fork_rng(devices=[batch.frames.device] if batch.frames.is_cuda else []):
        for level in objective.levels:
            with objective.only(level):
                backward_batch(objective, batch, grad_accum_steps=grad_accum_steps)
            for name, encoder in objective.named_children():
                if isinstance(encoder, Encoder):
                    norms[f"grad_norm/{level}/{name}"] = _norm(encoder.backbone)
            objective.zero_grad()
    return norms


def _norm(module: nn.Module) -> float:
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return get_total_norm(gradients).item() if gradients else 0.0
