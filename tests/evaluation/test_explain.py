"""Maps of relevance: where they must peak, what they must not touch, and how they are drawn."""

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


def stream(pool: Literal["class", "mean"], *, fused: bool) -> ImageEncoder:
    torch.manual_seed(0)
    backbone = vision(size=SIZE, patch=PATCH, fused=fused, embed_dim=32, depth=2, num_heads=2)
    return ImageEncoder(backbone, dim=DIM, pool=pool)


def with_one_bright_patch(row: int, column: int) -> Tensor:
    pixels = torch.zeros(1, 3, SIZE, SIZE)
    pixels[..., row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 3.0
    return pixels


def taught(pool: Literal["class", "mean"]) -> tuple[ImageEncoder, Tensor]:
    """A stream that says whether there is a bright patch, wherever it lies, and the vector that asks for it."""
    model, asked = stream(pool, fused=False), torch.nn.functional.one_hot(torch.tensor(0), DIM).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    places = [(row, column) for row in range(SIZE // PATCH) for column in range(SIZE // PATCH)]
    pictures = torch.stack([with_one_bright_patch(*place) for place in places] + [torch.zeros(1, 3, SIZE, SIZE)] * 16)
    wanted = torch.tensor([1.0] * 16 + [-1.0] * 16)
    for _ in range(80):
        optimizer.zero_grad()
        (model(pictures) @ asked - wanted).square().mean().backward()
        optimizer.step()
    return model.eval(), asked


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_the_map_peaks_at_the_one_patch_that_the_answer_depends_on(pool: Literal["class", "mean"]) -> None:
    model, asked = taught(pool)
    places = [(0, 0), (1, 2), (3, 3), (2, 1), (0, 3)]
    hits = 0
    for place in places:
        similarity, maps = patch_relevance(model, with_one_bright_patch(*place), asked[None])
        assert float(similarity[0]) > 0.5
        hits += divmod(int(maps[0, 0].argmax()), 4) == place
    assert hits >= 4


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_fused_and_plain_attention_give_the_same_map_and_nothing_of_the_stream_changes(
    pool: Literal["class", "mean"],
) -> None:
    maps = []
    for fused in (True, False):
        model = stream(pool, fused=fused).train()
        vit(model).blocks[0].eval()
        modes = [module.training for module in model.modules()]
        before = {name: value.clone() for name, value in model.state_dict().items()}
        _, found = patch_relevance(model, with_one_bright_patch(1, 1).repeat(3, 1, 1, 1), torch.eye(DIM)[:2])
        assert found.shape == (2, 3, 4, 4)
        assert bool((found >= 0).all())
        assert [module.training for module in model.modules()] == modes
        assert all(block.attn.fused_attn == fused for block in vit(model).blocks)
        assert all(not block.attn.attn_drop._forward_hooks for block in vit(model).blocks)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        maps.append(found)
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_frames_of_a_clip_are_explained_alike_however_many_there_are(pool: Literal["class", "mean"]) -> None:
    """A long clip goes through the stream in pieces."""
    model, frame = stream(pool, fused=False), with_one_bright_patch(1, 2)
    frames = model.backbone.micro_batch_size(frame) + 2
    _, maps = patch_relevance(model, frame.expand(frames, -1, -1, -1), torch.eye(DIM)[:1])
    assert maps.shape == (1, frames, 4, 4)
    torch.testing.assert_close(maps, maps[:, :1].expand_as(maps))
    assert float(maps.max()) > 0


def test_a_vector_asked_twice_as_long_has_twice_the_similarity_and_a_map_of_the_same_form() -> None:
    model, asked = stream("mean", fused=False), torch.randn(1, DIM, generator=torch.Generator().manual_seed(1))
    once, found = patch_relevance(model, with_one_bright_patch(0, 2), asked)
    twice, longer = patch_relevance(model, with_one_bright_patch(0, 2), 2 * asked)
    torch.testing.assert_close(twice, 2 * once)
    assert int(longer.argmax()) == int(found.argmax())


def test_the_whole_text_comes_first_and_each_word_with_what_it_adds(tiny_model: Path) -> None:
    model = DualEncoder.load(tiny_model)
    picture = Image.new("RGB", (40, 32), "red")
    whole, *words = explain(model, [picture, picture], "a red, red square")
    assert [word.text for word in words] == ["a", "red", "red", "square"]
    [[expected]] = (
        model.encode_images([picture], batch_size=1) @ model.encode_texts(["a red, red square"], batch_size=1).T
    )
    assert whole.similarity == pytest.approx(float(expected), abs=5e-3)  # one of them in bfloat16
    side = model.config["image"]["size"] // model.config["image"]["patch"]
    assert all(found.patches.shape == (2, side, side) for found in (whole, *words))
    again = explain(model, [picture, picture], "a red, red square")
    np.testing.assert_array_equal(whole.patches, again[0].patches)


def test_the_strongest_patch_glows_and_the_weakest_is_dimmed() -> None:
    patches = np.zeros((4, 4), dtype=np.float32)
    patches[0, 3] = 2.0
    drawn = overlay(Image.new("RGB", (64, 48), (100, 100, 100)), patches, most=2.0)
    assert drawn.size == (64, 48)
    strong, weak = drawn.getpixel((60, 4)), drawn.getpixel((4, 44))
    assert weak == (35, 35, 35)
    assert isinstance(strong, tuple)
    assert strong[0] > 180 > 120 > strong[2]
    assert overlay(Image.new("RGB", (8, 8)), np.zeros((4, 4), dtype=np.float32), most=0.0).getpixel((0, 0)) == (0, 0, 0)
