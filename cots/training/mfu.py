"""Model FLOPs utilization (MFU): the share of the device's matrix-product rate that training reaches."""

import time
from contextlib import AbstractContextManager

import torch
from torch.utils.flop_counter import FlopCounterMode

from cots.devices import compute_dtype

MATRIX_SIZE = {"cpu": 2048}  # side of the square matrices whose product is timed, by device type
ACCELERATOR_MATRIX_SIZE = 8192
ROUNDS = 5


class MfuMeter:
    """FLOPs of a training step, counted once, relative to the measured rate of large matrix products.

        MFU = FLOPs per step * steps per second / FLOPs per second of a matrix product in the compute dtype

    Matrix products, convolutions and their gradients are counted, and so is recomputation by gradient checkpointing.
    With several processes, both numbers are those of one process.

    Args:
        device: on which the model is trained.
    """

    def __init__(self, device: torch.device) -> None:
        self.rate = matmul_rate(device)
        self._counter = FlopCounterMode(display=False)

    def count_flops(self) -> AbstractContextManager[object]:
        """Context in which to run one step; its FLOPs are taken as those of every step."""
        return self._counter

    def mfu(self, steps_per_second: float) -> float:
        """MFU at this speed, >= 0; above 1 if the device was slower while its rate was measured."""
        return self._counter.get_total_flops() * steps_per_second / self.rate


def matmul_rate(device: torch.device) -> float:
    """FLOPs per second of a product of two large square matrices in the compute dtype: the best of five."""
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
