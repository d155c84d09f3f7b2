"""The momentum encoder: an exponential moving average of an encoder, never trained by gradient."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn


class MomentumEncoder(nn.Module):
    """A copy of a module whose parameters are an exponential moving average of the original's.

    Args:
        source: the module to copy; no reference to it is kept.

    Source: MoCo, arXiv:1911.05722, eq. 2.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(source).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever `mode` is: dropout would make the keys noisy."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """Whatever the copied module returns, without gradient."""
        return self.module(*inputs)

    @torch.no_grad()
    def update(self, source: nn.Module, momentum: float) -> None:
        """Update the parameters: slow <- momentum * slow + (1 - momentum) * fast; buffers are copied.

        Args:
            source: a module with the same parameters in the same order.
            momentum: in [0, 1]; 1 changes nothing, 0 copies.
        """
        slow: list[Tensor] = list(self.module.parameters())
        fast: list[Tensor] = list(source.parameters())
        assert len(slow) == len(fast), f"{len(slow)} parameters cannot follow {len(fast)}"
        torch._foreach_lerp_(slow, fast, 1 - momentum)
        for buffer, source_buffer in zip(self.module.buffers(), source.buffers(), strict=True):
            buffer.copy_(source_buffer)
