"""The momentum copy of a stream: the same module, moved slowly, never trained."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn


class MomentumEncoder(nn.Module):
    """A full copy of a module whose parameters follow the original's by an exponential moving average.

    Args:
        source: the module to copy; it is not kept.

    Source: MoCo, arXiv:1911.05722, eq. 2.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(source).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode whatever is asked: dropout in the keys would be noise."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """Whatever the copied module returns, without gradient."""
        return self.module(*inputs)

    @torch.no_grad()
    def update(self, source: nn.Module, momentum: float) -> None:
        """Move the parameters: slow <- momentum * slow + (1 - momentum) * fast; buffers are copied.

        Args:
            source: a module with the same parameters in the same order.
            momentum: in [0, 1]; 1 stands still, 0 copies.
        """
        slow: list[Tensor] = list(self.module.parameters())
        fast: list[Tensor] = list(source.parameters())
        assert len(slow) == len(fast), f"{len(slow)} parameters cannot follow {len(fast)}"
        torch._foreach_lerp_(slow, fast, 1 - momentum)
        for mine, theirs in zip(self.module.buffers(), source.buffers(), strict=True):
            mine.copy_(theirs)
