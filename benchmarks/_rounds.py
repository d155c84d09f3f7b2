"""Timing in turn: A B C A B C, so that a machine's changing speed touches all alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Call = Callable[[], object]


def in_turn(calls: Mapping[str, Call], *, rounds: int, settling: int = 0) -> dict[str, list[float]]:
    """Seconds of each call, by name and round; one more round goes before, unmeasured, to warm up.

    Args:
        calls: by name.
        rounds: measured calls of each.
        settling: unmeasured calls before each measured one: what repeats itself in use, such as a training step, finds
            caches and memory as it left them, and not as another variant did.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            for _ in range(settling):
                call()
            _wait()
            start = time.perf_counter()
            call()
            _wait()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def times_faster(seconds: Mapping[str, list[float]], *, than: str) -> dict[str, float]:
    """How many times faster each is than the one named: the median of the ratios by round."""
    return {
        name: statistics.median(a / b for a, b in zip(seconds[than], taken, strict=True))
        for name, taken in seconds.items()
    }
