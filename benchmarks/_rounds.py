"""Interleaved timing (A B C A B C), so that changes in the machine's speed affect all variants alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Call = Callable[[], object]


def interleave(calls: Mapping[str, Call], *, rounds: int, settling: int = 0) -> dict[str, list[float]]:
    """Seconds of each call, by name and round, after one round that warms up and is not measured.

    Args:
        calls: by name.
        rounds: measured calls of each.
        settling: unmeasured calls before each measured one, so that a call which repeats in use, such as a training
            step, finds caches and memory as it left them, not as another variant did.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            for _ in range(settling):
                call()
            _synchronize()
            start = time.perf_counter()
            call()
            _synchronize()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def times_faster(seconds: Mapping[str, list[float]], *, than: str) -> dict[str, float]:
    """How many times as fast each call is as the one named `than`: the median over rounds of the ratios."""
    return {
        name: statistics.median(a / b for a, b in zip(seconds[than], times, strict=True))
        for name, times in seconds.items()
    }
