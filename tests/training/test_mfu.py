"""MFU against operations counted by hand."""

import pytest
import torch
from torch import nn

from cots.training.mfu import MfuMeter, matmul_rate

CPU = torch.device("cpu")


def test_the_share_is_that_of_operations_counted_by_hand() -> None:
    layers, rows = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 8)), torch.randn(20, 48)
    used = MfuMeter(CPU)
    with used.count_flops():
        layers(rows).sum().backward()
    forward = 2 * 20 * (48 * 32 + 32 * 8)
    backward = 2 * 20 * (48 * 32 + 2 * 32 * 8)  # the input wants no gradient
    assert used.mfu(3.0) == pytest.approx((forward + backward) * 3.0 / used.rate)


def test_products_of_large_matrices_use_the_machine_about_whole() -> None:
    factor = torch.randn(512, 512)
    used = MfuMeter(CPU)
    with used.count_flops():
        factor @ factor
    assert used.mfu(used.rate / (2 * 512**3)) == pytest.approx(1)


def test_the_machine_multiplies_faster_than_python_would() -> None:
    assert matmul_rate(CPU) > 1e8
