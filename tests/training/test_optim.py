"""Parameter groups: weight decay, and the learning rate of each depth."""

import pytest
import torch
from torch import nn

from cots.errors import BadInput
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.momentum import MomentumEncoder
from cots.training.optim import build_param_groups
from tests.backbones import language, vision


class Heads(nn.Module):
    """An image encoder of two blocks, a text encoder of three, their momentum encoders, a head."""

    def __init__(self, kind: str = "megatron-bert") -> None:
        super().__init__()
        image_backbone = vision(size=16, embed_dim=16, depth=2, num_heads=2)
        text_backbone = language(vocab=20, name=kind, hidden_size=16, num_hidden_layers=3, num_attention_heads=2)
        self.image, self.text = (
            ImageEncoder(image_backbone, dim=4, pool="class"),
            TextEncoder(text_backbone, dim=4, pool="class"),
        )
        self.image_m, self.text_m = MomentumEncoder(self.image), MomentumEncoder(self.text)
        self.head = nn.Linear(16, 7)


def scales(module: nn.Module, layer_decay: float) -> dict[str, float]:
    """Scale of each trainable parameter; the groups contain each of them exactly once, and no other."""
    groups = build_param_groups(module, weight_decay=0.1, layer_decay=layer_decay)
    pairs = [(id(parameter), group["scale"]) for group in groups for parameter in group["params"]]
    trained = {id(parameter): name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert sorted(trained) == sorted(number for number, _ in pairs)
    return {trained[number]: scale for number, scale in pairs}


def test_without_layer_decay_matrices_decay_vectors_do_not_and_all_learn_alike() -> None:
    module = Heads()
    first, second = build_param_groups(module, weight_decay=0.1, layer_decay=1.0)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for group, decay, expected in (
        (first, 0.1, [p for p in trained if p.ndim > 1]),
        (second, 0.0, [p for p in trained if p.ndim <= 1]),
    ):
        assert (group["weight_decay"], group["scale"]) == (decay, 1.0)
        assert [id(p) for p in group["params"]] == [id(p) for p in expected]


def test_each_block_further_down_learns_slower_by_the_decay() -> None:
    by_name = scales(Heads(), 0.5)
    expected = {
        "image.backbone.mask_token": 1 / 8,
        "image.backbone.vit.pos_embed": 1 / 8,
        "image.backbone.vit.cls_token": 1 / 8,
        "image.backbone.vit.patch_embed.proj.weight": 1 / 8,
        "image.backbone.vit.blocks.0.mlp.fc1.weight": 1 / 4,
        "image.backbone.vit.blocks.1.norm1.bias": 1 / 2,
        "image.backbone.vit.norm.weight": 1,
        "image.projection.weight": 1,
        "text.backbone.encoder.embeddings.word_embeddings.weight": 1 / 16,
        "text.backbone.encoder.encoder.layer.0.attention.self.query.weight": 1 / 8,
        "text.backbone.encoder.encoder.layer.1.attention.self.query.weight": 1 / 4,
        "text.backbone.encoder.encoder.layer.2.attention.self.query.weight": 1 / 2,
        "text.backbone.encoder.encoder.ln.weight": 1,
        "text.projection.bias": 1,
        "head.weight": 1,
    }
    assert {name: by_name[name] for name in expected} == expected
    assert set(by_name.values()) == {1, 1 / 2, 1 / 4, 1 / 8, 1 / 16}


def test_the_same_parameters_decay_at_every_depth() -> None:
    module = Heads()
    decaying = []
    for layer_decay in (1.0, 0.7):
        groups = build_param_groups(module, weight_decay=0.1, layer_decay=layer_decay)
        decaying.append({id(p) for group in groups if group["weight_decay"] for p in group["params"]})
    assert decaying[0] == decaying[1]


def test_frozen_parameters_are_in_no_group() -> None:
    module = Heads()
    module.image.freeze_except_last(1)
    module.text.freeze_except_last(0)
    by_name = scales(module, 0.5)
    assert set(by_name.values()) == {1, 1 / 2}
    assert {name.split(".")[3] for name, scale in by_name.items() if scale == 1 / 2} == {"blocks"}


def test_a_step_moves_each_depth_by_its_share_of_the_rate() -> None:
    """Adam's first step is the rate itself for every weight, whatever the gradient's size."""
    module = Heads()
    groups = build_param_groups(module, weight_decay=0.0, layer_decay=0.5)
    optimizer = torch.optim.AdamW(groups, eps=1e-30)
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * group["scale"]
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    by_name = scales(module, 0.5)
    for name, value in module.named_parameters():
        moved = (before[name] - value.detach()).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.01 * by_name.get(name, 0)), atol=1e-7, rtol=1e-3)


def test_layer_decay_needs_a_list_of_blocks_and_its_absence_does_not() -> None:
    assert len(build_param_groups(Heads("albert"), weight_decay=0.1, layer_decay=1.0)) == 2
    with pytest.raises(BadInput, match="albert has 0 lists of 3 blocks"):
        build_param_groups(Heads("albert"), weight_decay=0.1, layer_decay=0.9)


def test_heads_and_projections_learn_faster_by_their_factor_and_backbones_do_not() -> None:
    module = Heads()
    groups = build_param_groups(module, weight_decay=0.1, layer_decay=0.5, head_lr_scale=10.0)
    by_id = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
    by_name = {name: by_id[id(p)] for name, p in module.named_parameters() if p.requires_grad}
    outside = {name for name in by_name if "backbone" not in name}
    assert {by_name[name] for name in outside} == {10.0}
    assert outside == {
        f"{layer}.{kind}" for layer in ("image.projection", "text.projection", "head") for kind in ("weight", "bias")
    }
    slow = scales(Heads(), 0.5)
    assert all(by_name[name] == slow[name] for name in by_name if name not in outside)
