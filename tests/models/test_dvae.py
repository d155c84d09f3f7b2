"""The relaxed samples of codes through which the dVAE is trained."""

import pytest
import torch

from cots.models.dvae.vae import gumbel_softmax


@pytest.mark.parametrize("temperature", [2.0, 0.05])
def test_codes_are_drawn_as_often_as_they_are_likely(temperature: float) -> None:
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    samples = gumbel_softmax(chances.log().view(1, 4, 1, 1).expand(50, 4, 20, 20), temperature, range(50))
    often = torch.bincount(samples.argmax(dim=1).flatten(), minlength=4) / 20_000
    torch.testing.assert_close(often, chances, atol=0.01, rtol=0)
    torch.testing.assert_close(samples.sum(dim=1), torch.ones(50, 20, 20))


def test_near_temperature_zero_a_draw_is_one_code_and_has_a_finite_gradient() -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 8, 2, 2, requires_grad=True)
    samples = gumbel_softmax((50 * scores).log_softmax(dim=1), 0.001, range(3))
    torch.testing.assert_close(samples.amax(dim=1), torch.ones(3, 2, 2))
    torch.autograd.backward(samples.square().sum())
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
