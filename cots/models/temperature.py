"""The temperature of the contrastive softmax: fixed, or learned."""

import math

import torch
from torch import Tensor, nn


class Temperature(nn.Module):
    """A divisor of similarities, kept above a minimum.

        tau = max(exp(log_tau), min)

    Args:
        init: initial value, > 0, dimensionless.
        learnable: whether log_tau is trained.
        min: lower bound, > 0. Below about 0.05, with many negatives, only the hardest one has a gradient to speak of.

    Source: CLIP, arXiv:2103.00020, section 2.3, learns log(1 / tau) and keeps tau above 0.01.
    """

    def __init__(self, *, init: float, learnable: bool, min: float) -> None:
        super().__init__()
        self.min = min
        self.log_tau = nn.Parameter(torch.tensor(math.log(init)), requires_grad=learnable)

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        return self.log_tau.exp().clamp(min=self.min)
