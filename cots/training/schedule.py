"""Schedules of values over a run."""

import math


def warmup_cosine(step: int, *, warmup_steps: int, steps: int) -> float:
    """Factor of the learning rate at a step, from 0: linear warm-up over `warmup_steps`, then cosine decay to 0.

    Returns:
        In (0, 1]; 1 at the end of the warm-up.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(steps - warmup_steps, 1)))


def exponential(step: int, *, start: float, end: float, steps: int) -> float:
    """A value that changes from start to end by a constant factor per step; both > 0."""
    return float(start * (end / start) ** (step / max(steps - 1, 1)))
