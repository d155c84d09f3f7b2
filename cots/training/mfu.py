"""Model FLOP utilisation: which share of the machine's own rate of matrix products a training run reaches."""

import time
from contextlib import AbstractContextManager

import torch
from torch.utils.flop_counter import FlopCounterMode

from cots.devices import compute_dtype

MATRIX_SIZE = {"cpu": 2048}  # of the matrices whose product is timed; elsewhere:
ACCELERATOR_MATRIX_SIZE = 8192
ROUNDS = 5


class MfuMeter:
    """Floating-point operations of a step, counted once, against what the machine multiplies in the same time.

        utilisation = operations of a step * steps a second / operations of a matrix product a second

    Matrix products, convolutions and their gradients are counted, in training's precision; what gradient checkpointing
    computes again counts too. With several processes both sides are one process's.

    Args:
        where: the device that trains.
    """

    def __init__(self, device: torch.device) -> None:
        self.rate = matmul_rate(device)
        self._counter = FlopCounterMode(display=False)

    def count_flops(self) -> AbstractContextManager[object]:
        """Around one step: its operations stand for every step's."""
        return self._counter

    def mfu(self, steps_per_second: float) -> float:
        """The share that is reached at this speed, >= 0; above 1 where the machine was slower when it was timed."""
        return self._counter.get_total_flops() * steps_per_second / self.rate


def matmul_rate(device: torch.device) -> float:
    """Operations a second of a product of two large square matrices, in the precision of training: the best of five."""
    side = MATRIX_SIZE.get(device.type, ACCELERATOR_MATRIX_SIZE)
    factor = torch.randn(side, side, device=device, dtype=compute_dtype(device))
    best = min(_seconds(factor) for _ in range(ROUNDS + 1))
    return 2 * side**3 / best


def _seconds(factor: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.mm(factor, factor)
    if factor.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start
