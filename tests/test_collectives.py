"""Collective operations with a single process."""

import pytest
import torch
from torch import nn

from cots.collectives import clip_grad_norm


@pytest.mark.parametrize(("max_norm", "expected"), [(1.0, 1.0), (10.0, 5.0)])
def test_gradients_are_clipped_to_the_maximum_norm_and_their_norm_before_is_returned(
    max_norm: float, expected: float
) -> None:
    module = nn.Linear(1, 1)
    module.weight.grad, module.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    assert float(clip_grad_norm(module, max_norm)) == pytest.approx(5.0)
    assert float(torch.stack([module.weight.grad[0], module.bias.grad]).norm()) == pytest.approx(expected, rel=1e-5)
