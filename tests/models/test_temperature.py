"""The learned temperature at its minimum."""

import pytest
import torch

from cots.models.temperature import Temperature


def follow(temperature: Temperature, sign: float, steps: int) -> float:
    """Let the loss push the temperature down (1) or up (-1); the objective calls `clamp_` after each step."""
    optimizer = torch.optim.AdamW(temperature.parameters(), lr=0.05, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        (sign * 10 * temperature()).backward()
        optimizer.step()
        temperature.clamp_()
    return float(temperature().detach())


def test_a_temperature_that_reached_its_minimum_rises_again_at_once() -> None:
    temperature = Temperature(init=0.012, learnable=True, min=0.01)
    assert follow(temperature, 1, 200) == pytest.approx(0.01)
    assert follow(temperature, -1, 2) > 0.0105


def test_a_temperature_of_an_older_checkpoint_below_the_minimum_is_lifted_and_learns() -> None:
    temperature = Temperature(init=0.001, learnable=True, min=0.01)
    assert float(temperature().detach()) == pytest.approx(0.01)
    assert follow(temperature, -1, 2) > 0.0105


def test_above_the_minimum_it_is_the_exponential_to_the_bit() -> None:
    temperature = Temperature(init=0.07, learnable=True, min=0.01)
    assert torch.equal(temperature(), temperature.log_tau.exp())
