"""Model FLOPs utilization (MFU): the share of the device's matrix-product rate that training reaches."""

import time
from contextlib import AbstractContextManager

import torch
from torch.utils.flop_counter import FlopCounterMode

from cots.devices import compute_dtype

SMALLEST_SIDE, LARGEST_SIDE = 512, 8192  # of the square matrices whose product is timed
LONG_ENOUGH = 0.002  # seconds of a product, beside which the start of its threads or kernels does not count
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
    """FLOPs per second of a product of two large square matrices in the compute dtype: the best of five.

    The matrices are as large as they must be for a product to take 2 ms (one core needs a side of 512), up to 8192.
    """
    side, best = SMALLEST_SIDE // 2, 0.0
    while best < LONG_ENOUGH and side < LARGEST_SIDE:
        side *= 2
        factor = torch.randn(side, side, device=device, dtype=compute_dtype(device))
        best = min(_seconds(factor) for _ in range(ROUNDS + 1))
    return 2 * side**3 / best


def _seconds(factor: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.mm(factor, factor)
    if factor.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start
