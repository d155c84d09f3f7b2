"""Relevance maps: where they must peak, what they must not change, and how they are drawn."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cots.evaluation.explain import explain, overlay, patch_relevance
from cots.models.dual_encoder import DualEncoder
from cots.models.encoder import ImageEncoder
from tests.backbones import vision, vit

SIZE, PATCH, DIM = 32, 8, 8


def build_encoder(pool: Literal["class", "mean"], *, fused: bool) -> ImageEncoder:
    torch.manual_seed(0)
    backbone = vision(size=SIZE, patch=PATCH, fused=fused, embed_dim=32, depth=2, num_heads=2)
    return ImageEncoder(backbone, dim=DIM, pool=pool)


def with_one_bright_patch(row: int, column: int) -> Tensor:
    pixels = torch.zeros(1, 3, SIZE, SIZE)
    pixels[..., row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 3.0
    return pixels


def train_to_detect(pool: Literal["class", "mean"]) -> tuple[ImageEncoder, Tensor]:
    """An encoder trained to detect a bright patch anywhere, and the query vector of a bright patch."""
    encoder, query = build_encoder(pool, fused=False), torch.nn.functional.one_hot(torch.tensor(0), DIM).float()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3)
    positions = [(row, column) for row in range(SIZE // PATCH) for column in range(SIZE // PATCH)]
    bright = [with_one_bright_patch(*position) for position in positions]
    images = torch.stack([*bright, *[torch.zeros(1, 3, SIZE, SIZE)] * 16])
    targets = torch.tensor([1.0] * 16 + [-1.0] * 16)
    for _ in range(80):
        optimizer.zero_grad()
        (encoder(images) @ query - targets).square().mean().backward()
        optimizer.step()
    return encoder.eval(), query


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_the_map_peaks_at_the_patch_that_decides(pool: Literal["class", "mean"]) -> None:
    encoder, query = train_to_detect(pool)
    positions = [(0, 0), (1, 2), (3, 3), (2, 1), (0, 3)]
    hits = 0
    for position in positions:
        similarity, maps = patch_relevance(encoder, with_one_bright_patch(*position), query[None])
        assert float(similarity[0]) > 0.5
        hits += divmod(int(maps[0, 0].argmax()), 4) == position
    assert hits >= 4


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_fused_and_plain_attention_give_the_same_map_and_leave_the_encoder_unchanged(
    pool: Literal["class", "mean"],
) -> None:
    maps = []
    for fused in (True, False):
        encoder = build_encoder(pool, fused=fused).train()
        vit(encoder).blocks[0].eval()
        modes = [module.training for module in encoder.modules()]
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        _, relevance = patch_relevance(encoder, with_one_bright_patch(1, 1).repeat(3, 1, 1, 1), torch.eye(DIM)[:2])
        assert relevance.shape == (2, 3, 4, 4)
        assert bool((relevance >= 0).all())
        assert [module.training for module in encoder.modules()] == modes
        assert all(block.attn.fused_attn == fused for block in vit(encoder).blocks)
        assert all(not block.attn.attn_drop._forward_hooks for block in vit(encoder).blocks)
        assert all(parameter.grad is None for parameter in encoder.parameters())
        assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
        maps.append(relevance)
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_equal_frames_of_a_video_have_equal_maps(pool: Literal["class", "mean"]) -> None:
    """A long video goes through the encoder in micro-batches."""
    encoder, frame = build_encoder(pool, fused=False), with_one_bright_patch(1, 2)
    frames = encoder.backbone.micro_batch_size(frame) + 2
    _, maps = patch_relevance(encoder, frame.expand(frames, -1, -1, -1), torch.eye(DIM)[:1])
    assert maps.shape == (1, frames, 4, 4)
    torch.testing.assert_close(maps, maps[:, :1].expand_as(maps))
    assert float(maps.max()) > 0


def test_a_query_of_twice_the_norm_has_twice_the_similarity_and_the_same_peak() -> None:
    encoder, query = build_encoder("mean", fused=False), torch.randn(1, DIM, generator=torch.Generator().manual_seed(1))
    similarity, relevance = patch_relevance(encoder, with_one_bright_patch(0, 2), query)
    doubled_similarity, doubled_relevance = patch_relevance(encoder, with_one_bright_patch(0, 2), 2 * query)
    torch.testing.assert_close(doubled_similarity, 2 * similarity)
    assert int(doubled_relevance.argmax()) == int(relevance.argmax())


def test_the_whole_text_comes_first_and_then_each_word(tiny_model: Path) -> None:
    model = DualEncoder.load(tiny_model)
    image = Image.new("RGB", (40, 32), "red")
    whole, *words = explain(model, [image, image], "a red, red square")
    assert [word.text for word in words] == ["a", "red", "red", "square"]
    [[expected]] = (
        model.encode_images([image], batch_size=1) @ model.encode_texts(["a red, red square"], batch_size=1).T
    )
    assert whole.similarity == pytest.approx(float(expected), abs=5e-3)  # one of them in bfloat16
    side = model.config["image"]["size"] // model.config["image"]["patch"]
    assert all(part.patches.shape == (2, side, side) for part in (whole, *words))
    again = explain(model, [image, image], "a red, red square")
    np.testing.assert_array_equal(whole.patches, again[0].patches)


def test_the_most_relevant_patch_is_red_and_the_least_relevant_dark() -> None:
    patches = np.zeros((4, 4), dtype=np.float32)
    patches[0, 3] = 2.0
    drawn = overlay(Image.new("RGB", (64, 48), (100, 100, 100)), patches, max_relevance=2.0)
    assert drawn.size == (64, 48)
    strong, weak = drawn.getpixel((60, 4)), drawn.getpixel((4, 44))
    assert weak == (35, 35, 35)
    assert isinstance(strong, tuple)
    assert strong[0] > 180 > 120 > strong[2]
    assert overlay(Image.new("RGB", (8, 8)), np.zeros((4, 4), dtype=np.float32), max_relevance=0.0).getpixel(
        (0, 0)
    ) == (0, 0, 0)
