"""The temperature of the contrastive softmax: fixed, or learned."""

import math

import torch
from torch import Tensor, nn


class Temperature(nn.Module):
    """A divisor of similarities, kept above a least value.

        tau = max(exp(log_tau), least)

    Args:
        start: the value at the start, > 0, dimensionless.
        learned: whether log_tau is trained.
        least: > 0; below about 0.05 with many negatives the hardest one alone is learnt from.

    Source: CLIP, arXiv:2103.00020, section 2.3, learns log(1 / tau) and keeps tau above 0.01.
    """

    def __init__(self, *, start: float, learned: bool, least: float) -> None:
        super().__init__()
        self.least = least
        self.log_tau = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learned)

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        return self.log_tau.exp().clamp(min=self.least)
