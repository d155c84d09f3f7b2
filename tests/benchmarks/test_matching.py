"""Matching: which wrong pairs are drawn, what they cost, and that it can be learnt."""

import math
from pathlib import Path

import pytest
import torch

from benchmarks._single_stream.cross_encoder import CrossEncoder
from benchmarks._single_stream.matching import ITMObjective, TemperatureSchedule, sample_hard_negatives
from cots.models.dual_encoder import DualEncoder
from cots.objectives.protocol import Batch

SCHEDULE = TemperatureSchedule(start=0.8, end=0.2, steps=4)


def objective(folder: Path) -> ITMObjective:
    torch.manual_seed(0)
    model = DualEncoder.load(folder)
    return ITMObjective(CrossEncoder.of(model).joint, image=model.image, text=model.text, temperature=SCHEDULE)


def batch(image_index: list[int]) -> Batch:
    """Noise images and random tokens; captions of one image have the same frames."""
    torch.manual_seed(1)
    count = len(image_index)
    input_ids, none = torch.randint(5, 20, (count, 6)), torch.zeros(count, 0)
    return Batch(
        image_index=torch.tensor(image_index),
        caption_index=torch.arange(count),
        frame_row=torch.arange(count),
        frames=torch.randn(count, 1, 3, 32, 32)[torch.tensor(image_index)],
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids, dtype=torch.bool),
        bool_masked_pos=none.bool(),
        visual_tokens=none.long(),
        mlm_input_ids=none.long(),
        mlm_mask=none.bool(),
    )


@pytest.mark.parametrize("image_index", [[0, 1], [0, 0, 1], [0, 1, 0, 2, 2, 0, 1], [3, 3, 3, 3, 0]])
@pytest.mark.parametrize("temperature", [1e-3, 0.1, 100.0])
def test_hard_negatives_never_share_the_image(image_index: list[int], temperature: float) -> None:
    torch.manual_seed(0)
    numbers = torch.tensor(image_index)
    alike = torch.where(numbers[:, None] == numbers, 1.0, -1.0)
    for _ in range(50):
        drawn = sample_hard_negatives(alike, numbers, temperature=temperature)
        assert (numbers[drawn] != numbers).all()


def test_hard_negatives_are_drawn_by_the_softmax_of_the_similarity() -> None:
    torch.manual_seed(0)
    similarity = torch.zeros(4, 4)
    similarity[0] = torch.tensor([0.9, 0.1, 0.3, 0.8])
    image_index = torch.tensor([0, 1, 2, 0])  # the last pair is of the first image
    drawn = torch.stack([sample_hard_negatives(similarity, image_index, temperature=0.2) for _ in range(4000)])
    shares = [(torch.bincount(drawn[:, row], minlength=4) / 4000).tolist() for row in range(2)]
    expected = math.exp(0.1 / 0.2) / (math.exp(0.1 / 0.2) + math.exp(0.3 / 0.2))
    assert shares[0] == pytest.approx([0, expected, 1 - expected, 0], abs=0.03)
    assert shares[1] == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.03)


def test_a_batch_of_one_image_is_refused_with_its_size() -> None:
    with pytest.raises(ValueError, match="3 pairs of one image"):
        sample_hard_negatives(torch.zeros(3, 3), torch.tensor([5, 5, 5]), temperature=1.0)


@pytest.mark.parametrize("image_index", [[0, 1], [0, 1, 0, 2, 3]])
def test_an_untrained_head_costs_ln_2(tiny_model: Path, image_index: list[int]) -> None:
    output = objective(tiny_model)(batch(image_index), None)
    assert float(output.loss.detach()) == pytest.approx(math.log(2), rel=1e-6)
    assert output.loss.requires_grad
    assert float(output.losses["matching"]) == float(output.loss.detach())


def test_a_head_that_calls_everything_right_pays_for_two_wrong_pairs_in_three(tiny_model: Path) -> None:
    matching = objective(tiny_model)
    torch.nn.init.constant_(matching.joint.head.bias, 3.0)
    right, wrong = math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))
    loss = matching(batch([0, 1, 2, 3]), None).loss
    assert float(loss.detach()) == pytest.approx((right + 2 * wrong) / 3, rel=1e-5)


def test_the_encoders_that_find_negatives_are_frozen_and_the_joint_encoder_learns(tiny_model: Path) -> None:
    matching = objective(tiny_model)
    torch.nn.init.normal_(matching.joint.head.weight)
    matching(batch([0, 1, 2, 3]), None).loss.backward()
    assert all(
        p.grad is None and not p.requires_grad for p in (*matching.image.parameters(), *matching.text.parameters())
    )
    assert all(p.grad is not None for p in matching.joint.vision.vit.blocks.parameters())


def test_the_same_seed_gives_the_same_loss(tiny_model: Path) -> None:
    matching, pairs, losses = objective(tiny_model), batch([0, 1, 2, 3, 4, 5]), []
    torch.nn.init.normal_(matching.joint.head.weight)
    for seed in (3, 3, 4, 5, 6):
        torch.manual_seed(seed)
        losses.append(float(matching(pairs, None).loss.detach()))
    assert losses[0] == losses[1]
    assert len(set(losses)) > 1


def test_negatives_harden_with_each_step_and_then_stay_as_hard(tiny_model: Path) -> None:
    matching, seen = objective(tiny_model), []
    for _ in range(6):
        seen.append(matching.metrics(None)["temperature"])
        matching.update_state(None)
    assert seen == pytest.approx([0.8, 0.8 / 2**0.5, 0.4, 0.4 / 2**0.5, 0.2, 0.2])
    resumed = objective(tiny_model)
    resumed.load_state_dict(matching.state_dict())
    assert resumed.metrics(None)["temperature"] == pytest.approx(0.2)


@pytest.mark.slow
def test_eight_pairs_can_be_learnt_by_heart(tiny_model: Path) -> None:
    matching, pairs = objective(tiny_model), batch(list(range(8)))
    matching.joint.reset_blocks()
    optimizer = torch.optim.AdamW(matching.joint.parameters(), lr=1e-3)
    for _ in range(300):
        loss = matching(pairs, None).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    matching.eval()
    with torch.no_grad():
        texts = [pairs.input_ids.roll(shift, 0) for shift in range(8)]
        logits = torch.stack([matching.joint(pairs.frames, input_ids, pairs.attention_mask) for input_ids in texts])
    assert (logits[0] > logits[1:].amax(dim=0)).all()
