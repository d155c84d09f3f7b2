"""The temperature of the contrastive softmax: fixed, or learned."""

import math

import torch
from torch import Tensor, nn


class Temperature(nn.Module):
    """A divisor of similarities, kept above a minimum.

        tau = exp(max(log_tau, log(min)))

    Args:
        init: initial value, > 0, dimensionless.
        learnable: whether log_tau is trained.
        min: lower bound, > 0. Below about 0.05, with many negatives, only the hardest one has a gradient to speak of.

    The gradient reaches log_tau at the minimum too, and `clamp_` undoes steps below it, so a temperature that reached
    its minimum rises as soon as the loss asks for it.

    Source: CLIP, arXiv:2103.00020, section 2.3, learns log(1 / tau) and keeps tau above 0.01.
    """

    def __init__(self, *, init: float, learnable: bool, min: float) -> None:
        super().__init__()
        self.log_min = math.log(min)
        self.log_tau = nn.Parameter(torch.tensor(math.log(init)), requires_grad=learnable)

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        lift = (self.log_min - self.log_tau.detach()).clamp(min=0)
        return (self.log_tau + lift).exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Put a learned temperature that the optimizer moved below the minimum back to it."""
        self.log_tau.clamp_(min=self.log_min)
