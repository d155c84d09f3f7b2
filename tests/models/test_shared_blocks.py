"""Blocks above both encoders, with the same weights for images and texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cots.config.model import ImageEncoderConfig, ModelConfig
from cots.data.tokenizer import load_tokenizer
from cots.errors import BadInput
from cots.factory.model import describe, fit_to_section
from cots.models.dual_encoder import DualEncoder
from cots.models.encoder import ImageEncoder
from cots.models.momentum import MomentumEncoder
from cots.models.shared_blocks import SharedBlocks
from cots.models.text_model import load_text_model
from tests.backbones import vision
from tests.models.test_dual_encoder import TEXTS, pair, vectors


def build(folder: Path, **config: Any) -> DualEncoder:
    torch.manual_seed(0)
    settings = pair(folder, "bert") | {"shared_blocks": 2} | config
    return DualEncoder.build(settings, load_tokenizer(folder / "bert"))


def reference(shared: SharedBlocks, tokens: torch.Tensor) -> torch.Tensor:
    """The blocks of one row of tokens (L, D) without padding, head by head."""
    for block in shared.blocks:
        modules: dict[str, Any] = dict(block.named_modules())
        normed = modules["norm1"](tokens)
        query, key, value = (modules["attn.qkv"](normed)).chunk(3, dim=-1)
        heads = []
        for columns in torch.split(torch.arange(tokens.shape[1]), 64):
            scores = query[:, columns] @ key[:, columns].T / len(columns) ** 0.5
            heads.append(scores.softmax(dim=-1) @ value[:, columns])
        tokens = tokens + modules["attn.proj"](torch.cat(heads, dim=1))
        tokens = tokens + modules["mlp.fc2"](F.gelu(modules["mlp.fc1"](modules["norm2"](tokens))))
    normed_tokens: torch.Tensor = shared.norm(tokens)
    return normed_tokens


@pytest.mark.parametrize("dim", [48, 128])
def test_tokens_are_encoded_as_by_hand_and_padding_is_not_read(dim: int) -> None:
    shared = SharedBlocks(dim=dim, num_blocks=2).double()
    tokens = torch.randn(2, 5, dim, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    encoded = shared(tokens, mask)
    torch.testing.assert_close(encoded[0], reference(shared, tokens[0]))
    torch.testing.assert_close(encoded[1, :3], reference(shared, tokens[1, :3]))
    torch.testing.assert_close(shared(tokens)[1], reference(shared, tokens[1]))


def test_what_texts_teach_changes_the_vectors_of_images(tmp_path: Path) -> None:
    model = build(tmp_path)
    before = vectors(model)
    optimizer = torch.optim.SGD(model.text.parameters(), lr=1.0)
    model.text(torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.bool))[0, 0].backward()
    optimizer.step()
    assert not np.allclose(before, vectors(model), atol=1e-3)


def test_without_them_a_model_has_the_weights_and_the_config_of_before(tmp_path: Path) -> None:
    model = build(tmp_path, shared_blocks=0)
    assert not [name for name in model.image.state_dict() if "shared" in name]
    assert "shared_blocks" not in ModelConfig().model_dump()


def test_a_start_keeps_its_own_blocks_and_another_number_is_refused(tmp_path: Path) -> None:
    model = build(tmp_path)
    image = ImageEncoderConfig(size=model.config["image"]["size"], patch=model.config["image"]["patch"])
    for number in (0, 2):
        started = fit_to_section(model, ModelConfig(image=image, shared_blocks=number), name="it")
        assert np.allclose(vectors(started), vectors(model), atol=1e-6)
        assert describe(started, name="it").endswith(", shared blocks: 2")
    with pytest.raises(BadInput, match=r"model\.shared_blocks is 1, and it, .* has 2: give 2"):
        fit_to_section(model, ModelConfig(image=image, shared_blocks=1), name="it")


def test_both_halves_are_one_module_after_loading_and_at_another_size_and_vectors_stay(tmp_path: Path) -> None:
    model = build(tmp_path)
    model.save(tmp_path / "model")
    loaded = DualEncoder.load(tmp_path / "model")
    assert loaded.digest == model.digest
    assert np.array_equal(vectors(loaded), vectors(model))
    assert loaded.image.shared is loaded.text.shared is not None
    larger = loaded.with_image_size(40)
    assert larger.image.shared is larger.text.shared is not loaded.image.shared
    texts = load_text_model(tmp_path / "model")
    assert texts is not None
    assert np.array_equal(texts.encode_texts(TEXTS, batch_size=2), model.encode_texts(TEXTS, batch_size=2))


def test_momentum_encoders_follow_the_shared_blocks_of_both(tmp_path: Path) -> None:
    model = build(tmp_path)
    averages = [MomentumEncoder(model.image), MomentumEncoder(model.text)]
    with torch.no_grad():
        for parameter in {*model.image.parameters(), *model.text.parameters()}:
            parameter.add_(1.0)
    for average, encoder in zip(averages, (model.image, model.text), strict=True):
        average.update(encoder, 0.5)
        slow, fast = (dict(module.named_parameters())["shared.norm.weight"] for module in (average.module, encoder))
        torch.testing.assert_close(slow, fast - 0.5)


def test_they_are_trained_beside_frozen_backbones(tmp_path: Path) -> None:
    model = build(tmp_path)
    model.image.lock()
    model.text.freeze_except_last(0)
    for encoder in (model.image, model.text):
        above: list[nn.Module] = [encoder.shared_input, encoder.shared, encoder.projection]  # type: ignore[list-item]
        assert all(parameter.requires_grad for module in above for parameter in module.parameters())
    assert not any(parameter.requires_grad for parameter in model.image.backbone.parameters())


def test_a_pooling_layer_below_them_is_refused() -> None:
    backbone = vision(size=16, embed_dim=16, depth=1, num_heads=2, global_pool="map", class_token=False)
    with pytest.raises(BadInput, match="pools before shared blocks: give class or mean"):
        ImageEncoder(backbone, dim=8, pool="attention", shared=SharedBlocks(dim=8, num_blocks=1))
