"""The baselines against loops, closed forms and invariances, in float64."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cots.models.temperature import Temperature
from cots.objectives.clip import ClipObjective
from cots.objectives.protocol import ALL_ROWS, LossOutput, Objective
from cots.objectives.siglip import SiglipObjective, sigmoid_loss
from tests.objectives.test_cots import batch, objective


def run_baseline(kind: str, pairs: int) -> tuple[LossOutput, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    cots, some = objective(queue=1, negatives="online"), batch(pairs)
    temperature = Temperature(init=0.2, learnable=True, min=0.01)
    model = (
        ClipObjective(image=cots.image, text=cots.text, temperature=temperature)
        if kind == "clip"
        else SiglipObjective(image=cots.image, text=cots.text, temperature=temperature, bias=-2.0)
    ).double()
    with torch.no_grad():
        image, text = model.image(some.frames), model.text(some.input_ids, some.attention_mask)
    output: LossOutput = model(some, None)
    return output, image, text, some.image_index


@pytest.mark.parametrize("pairs", [1, 2, 5])
def test_clip_agrees_with_loops(pairs: int) -> None:
    output, image, text, image_index = run_baseline("clip", pairs)
    slow = 0.0
    for row in range(pairs):
        others = [row, *(o for o in range(pairs) if image_index[o] != image_index[row])]
        for query, candidates in ((image[row], text), (text[row], image)):
            mass = sum(math.exp(float(query @ candidates[other]) / 0.2) for other in others)
            slow += (math.log(mass) - float(query @ candidates[row]) / 0.2) / (2 * pairs)
    assert float(output.loss.detach()) == pytest.approx(slow, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("pairs", [1, 2, 5])
def test_siglip_agrees_with_loops(pairs: int) -> None:
    output, image, text, image_index = run_baseline("siglip", pairs)
    slow = 0.0
    for row in range(pairs):
        for other in range(pairs):
            if row != other and image_index[row] == image_index[other]:
                continue
            logit = float(image[row] @ text[other]) / 0.2 - 2.0
            slow -= math.log(1 / (1 + math.exp(-logit if row == other else logit))) / pairs
    assert float(output.loss.detach()) == pytest.approx(slow, rel=1e-6)


def test_logits_of_zero_cost_ln_2_a_pair() -> None:
    nothing = torch.zeros(5, 5, dtype=torch.bool)
    assert float(sigmoid_loss(torch.zeros(5, 5), torch.arange(5), nothing)) == pytest.approx(5 * math.log(2), rel=1e-6)


def test_the_sigmoid_loss_does_not_depend_on_the_order_of_the_pairs() -> None:
    logits = torch.randn(6, 6, dtype=torch.float64)
    order = torch.randperm(6)
    none = torch.zeros(6, 6, dtype=torch.bool)
    own = torch.arange(6)
    torch.testing.assert_close(sigmoid_loss(logits, own, none), sigmoid_loss(logits[order][:, order], own, none))


def test_an_ignored_pair_has_no_gradient() -> None:
    logits = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    excluded = torch.zeros(4, 4, dtype=torch.bool)
    excluded[1, 2] = True
    sigmoid_loss(logits, torch.arange(4), excluded).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert F.one_hot(torch.tensor(6), 16).reshape(4, 4).bool().equal(logits.grad == 0)


def test_every_objective_keeps_its_temperature_above_the_minimum() -> None:
    cots, some = objective(queue=1, negatives="momentum"), batch(3)
    temperature = cots.temperature
    objectives: list[Objective[Any]] = [
        cots,
        ClipObjective(image=cots.image, text=cots.text, temperature=temperature),
        SiglipObjective(image=cots.image, text=cots.text, temperature=temperature, bias=-2.0),
    ]
    for trained in objectives:
        temperature.log_tau.data.fill_(-9.0)
        trained.update_state(trained.compute_keys(some, [ALL_ROWS]))
        assert temperature.log_tau.item() == pytest.approx(math.log(0.01))
