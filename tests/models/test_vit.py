"""The image backbone: any plain timm vision transformer, masked patches, other resolutions, weights from folders."""

from pathlib import Path
from typing import Any, Literal

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from cots.errors import BadInput
from cots.models.encoder import ImageEncoder
from cots.models.token_index import TokenIndex
from cots.models.vit import VitBackbone
from tests.foreign import VIT, save_vit

HALF_GRID = torch.tensor([True, False] * 8).expand(2, 16)


def backbone(name: str = "vit_tiny_patch16_224", **changes: Any) -> VitBackbone:
    settings: dict[str, Any] = {"pretrained": False, "size": 32, "patch": 8, "stem": "linear", "fused_attention": False}
    torch.manual_seed(0)
    return VitBackbone(name=name, **({"options": VIT} | settings | changes)).eval()


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "class token": ("vit_tiny_patch16_224", {}),
    "no class token": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
    "register alone, norm after pooling": ("vit_medium_patch16_reg1_gap_256", {}),
    "class token and registers": ("vit_small_patch14_reg4_dinov2", {}),
    "attention pooling": ("vit_base_patch16_siglip_224", {}),
    "distillation token": ("deit_tiny_distilled_patch16_224", {}),
    "position apart from the class token": ("deit3_small_patch16_224", {}),
    "norm before the blocks": ("vit_base_patch32_clip_224", {}),
    "parallel blocks": ("vit_small_patch16_18x2_224", {}),
    "any resolution": ("vit_tiny_patch16_224", {"dynamic_img_size": True}),
}


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_tokens_are_those_of_timm_s_own_forward(variant: str) -> None:
    name, options = VARIANTS[variant]
    model, images = backbone(name, options=VIT | options), torch.randn(2, 3, 32, 32)
    tokens = model(images)
    assert tokens.shape == (2, model.num_prefix_tokens + 16, 32)
    torch.testing.assert_close(tokens, model.vit.fc_norm(model.vit.forward_features(images)))


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_the_content_of_a_masked_patch_changes_nothing(variant: str) -> None:
    name, options = VARIANTS[variant]
    model, images = backbone(name, options=VIT | options), torch.randn(2, 3, 32, 32)
    mask = HALF_GRID.reshape(2, 1, 4, 4).float()
    other = images + F.interpolate(mask, scale_factor=8) * torch.randn_like(images)
    positions = TokenIndex.from_mask(HALF_GRID).shift(model.num_prefix_tokens)
    torch.testing.assert_close(
        model.forward_clean_and_masked(images, HALF_GRID, positions=positions)[1],
        model.forward_clean_and_masked(other, HALF_GRID, positions=positions)[1],
    )
    assert not torch.allclose(model(images), model(other))


def test_a_model_of_dynamic_resolution_equals_one_of_fixed_resolution_also_with_masked_patches() -> None:
    fixed, free = backbone(), backbone(options=VIT | {"dynamic_img_size": True})
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        free.forward_clean_and_masked(
            images, HALF_GRID, positions=TokenIndex.from_mask(HALF_GRID).shift(free.num_prefix_tokens)
        ),
        fixed.forward_clean_and_masked(
            images, HALF_GRID, positions=TokenIndex.from_mask(HALF_GRID).shift(fixed.num_prefix_tokens)
        ),
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eva02_tiny_patch14_224", "is a Eva, not timm's VisionTransformer"),
        ("beit_base_patch16_224", "is a Beit, not timm's VisionTransformer"),
        ("vit_relpos_small_patch16_224", "not timm's VisionTransformer"),
        ("vit_tiny_r_s16_p8_224", "embeds patches by HybridEmbed"),
        ("resnet18", "timm cannot build resnet18"),
        ("vit_huge_patch99", "Unknown model"),
        ("some/folder", "local-dir:some/folder"),
        ("local-dir:/nowhere", "/nowhere/config.json"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=r"^model\.image: ") as error:
        backbone(name, options={"depth": 1} if "resnet" not in name else {})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mistyped_option_is_refused_and_named() -> None:
    with pytest.raises(BadInput, match="embed_dmi"):
        backbone(options={"embed_dmi": 32})


def test_patches_may_not_be_dropped() -> None:
    with pytest.raises(BadInput, match="patch_drop_rate"):
        backbone(options=VIT | {"patch_drop_rate": 0.5})


def test_a_convolutional_stem_needs_a_power_of_two() -> None:
    with pytest.raises(BadInput, match="patch is 12"):
        backbone(size=24, patch=12, stem="convolutions")


@pytest.mark.parametrize("name", ["vit_medium_patch16_reg1_gap_256", "vit_base_patch16_siglip_224"])
def test_the_class_token_cannot_be_projected_where_there_is_none(name: str) -> None:
    with pytest.raises(BadInput, match="has no class token: give mean"):
        ImageEncoder(backbone(name), dim=8, pool="class")
    ImageEncoder(backbone(name), dim=8, pool="mean")


def test_weights_of_a_local_folder_are_taken_exactly(tmp_path: Path) -> None:
    vit = save_vit(tmp_path / "vit")
    model = backbone(f"local-dir:{tmp_path / 'vit'}", pretrained=True, options={})
    theirs = {name: value for name, value in vit.state_dict().items() if not name.startswith("head.")}
    assert model.vit.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in model.vit.state_dict().items())


def test_weights_of_a_single_file_are_taken_exactly(tmp_path: Path) -> None:
    vit = save_vit(tmp_path / "vit", num_classes=0)
    save_file(vit.state_dict(), tmp_path / "weights.safetensors")
    overlay = {"file": str(tmp_path / "weights.safetensors"), "num_classes": 0}
    model = backbone(pretrained=True, options=VIT | {"pretrained_cfg_overlay": overlay})
    assert all(torch.equal(value, vit.state_dict()[name]) for name, value in model.vit.state_dict().items())
    assert "pretrained_cfg_overlay" not in model.options


@pytest.mark.parametrize("damage", ["weights missing", "weights cut", "weights of another model"])
def test_damaged_weights_are_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    save_vit(tmp_path / "vit")
    weights = tmp_path / "vit/model.safetensors"
    if damage == "weights missing":
        weights.unlink()
    elif damage == "weights cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        save_file({"other": torch.zeros(3)}, weights)
    with pytest.raises(BadInput, match=r"^model\.image: timm cannot build ") as error:
        backbone(f"local-dir:{tmp_path / 'vit'}", pretrained=True, options={})
    assert "\n" not in str(error.value)


def test_a_pretrained_model_at_another_resolution_is_the_resized_one(tmp_path: Path) -> None:
    save_vit(tmp_path / "vit")
    name = f"local-dir:{tmp_path / 'vit'}"
    small, large = (backbone(name, pretrained=True, options={}, size=size) for size in (32, 48))
    small.resize(48)
    torch.testing.assert_close(small.vit.pos_embed, large.vit.pos_embed)
    assert large.vit.pos_embed.shape == (1, 1 + 36, 32)


def test_a_pretrained_patch_embedding_is_resampled_to_the_patch_that_is_asked_for(tmp_path: Path) -> None:
    """FlexiViT's property (arXiv:2212.08013): the enlarged patch has the token of the patch it was enlarged from."""
    save_vit(tmp_path / "vit")
    name = f"local-dir:{tmp_path / 'vit'}"
    small, large = (
        backbone(name, pretrained=True, options={}, size=size, patch=patch).vit.patch_embed
        for size, patch in ((32, 8), (64, 16))
    )
    patches = torch.randn(2, 3, 8, 8)
    enlarged = F.interpolate(patches, size=16, mode="bicubic", antialias=True)
    torch.testing.assert_close(large.proj(enlarged), small.proj(patches), atol=1e-4, rtol=1e-4)


# --- resolution


def test_resizing_to_the_same_size_changes_no_bit() -> None:
    model, before = backbone(), backbone().state_dict()
    model.resize(32)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_resized_model_takes_larger_images_and_masks_their_patches(variant: str) -> None:
    name, options = VARIANTS[variant]
    model = backbone(name, options=VIT | options)
    model.resize(48)
    masked = torch.arange(36).expand(2, 36) % 3 == 0
    clean, hidden = model.forward_clean_and_masked(
        torch.randn(2, 3, 48, 48), masked, positions=TokenIndex.from_mask(masked).shift(model.num_prefix_tokens)
    )
    assert clean.shape == (2, model.num_prefix_tokens + 36, 32)
    assert hidden.shape == (24, 32)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_both_passes_together_are_each_pass_by_itself(variant: str, share: float) -> None:
    name, options = VARIANTS[variant]
    model = backbone(name, options=VIT | options).double().eval()
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    masked = torch.rand(3, 16) < share
    clean, hidden = model.forward_clean_and_masked(
        images, masked, positions=TokenIndex.from_mask(masked).shift(model.num_prefix_tokens)
    )
    again, view = model.forward_clean_and_masked(images, masked, positions=None)
    torch.testing.assert_close(clean, model(images))
    torch.testing.assert_close(again, clean)

    def hide(_: Any, __: Any, patches: Tensor) -> Tensor:
        patches = patches.clone()
        patches.view(3, 16, -1)[masked] = model.mask_token
        return patches

    model.vit.patch_embed.register_forward_hook(hide)
    torch.testing.assert_close(hidden, model(images)[:, model.num_prefix_tokens :][masked])
    torch.testing.assert_close(view, model(images))


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_a_batch_larger_than_the_cache_is_encoded_like_its_pieces(pool: Literal["class", "mean"], view: bool) -> None:
    encoder = ImageEncoder(backbone(), dim=8, pool=pool).double()
    num_videos = encoder.backbone.micro_batch_size(torch.empty(1, 3, 32, 32)) // 2 + 3
    frames = torch.randn(num_videos, 2, 3, 32, 32, dtype=torch.float64)
    masked = torch.rand(2 * num_videos, 16) < 0.3
    feature, hidden = encoder.forward_clean_and_masked(frames, masked, embed_masked=view)
    torch.testing.assert_close(encoder(frames), feature)
    torch.testing.assert_close(encoder(frames[-5:]), feature[-5:])
    _, last = encoder.forward_clean_and_masked(frames[-5:], masked[-10:], embed_masked=view)
    torch.testing.assert_close(last.tokens, hidden.tokens[-len(last.tokens) :])
    assert (hidden.embedding is not None) == view
    if hidden.embedding is not None:
        torch.testing.assert_close(last.embedding, hidden.embedding[-5:])


def test_only_the_positions_of_patches_change() -> None:
    model, before = backbone("vit_small_patch14_reg4_dinov2"), backbone("vit_small_patch14_reg4_dinov2").state_dict()
    model.resize(48)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"vit.pos_embed"}
    classed, unclassed = backbone(), backbone().vit.pos_embed
    classed.resize(48)
    assert torch.equal(classed.vit.pos_embed[:, :1], unclassed[:, :1])


def test_without_class_token_and_with_constant_positions_a_plain_image_is_encoded_alike_at_224_and_384() -> None:
    model = backbone(size=224, patch=16, options=VIT | {"class_token": False, "global_pool": "avg"})
    with torch.no_grad():
        model.vit.pos_embed.copy_(torch.randn(32).expand_as(model.vit.pos_embed))
    colour = torch.randn(1, 3, 1, 1)
    before = model(colour.expand(1, 3, 224, 224)).mean(dim=1)
    model.resize(384)
    tokens = model(colour.expand(1, 3, 384, 384))
    assert tokens.shape == (1, 24 * 24, 32)
    torch.testing.assert_close(tokens.mean(dim=1), before, atol=1e-4, rtol=1e-4)


def test_smooth_positions_survive_the_way_to_a_finer_grid_and_back() -> None:
    model = backbone(size=64)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 8), torch.linspace(0, 1, 8), indexing="ij")
    waves = torch.stack([torch.sin(2 * rows + k * 0.2) + torch.cos(1.5 * columns - k * 0.1) for k in range(32)], dim=-1)
    smooth = torch.cat([torch.randn(1, 1, 32), waves.reshape(1, 64, 32)], dim=1)
    with torch.no_grad():
        model.vit.pos_embed.copy_(smooth)
    model.resize(96)
    assert model.vit.pos_embed.shape == (1, 1 + 144, 32)
    model.resize(64)
    error = float((model.vit.pos_embed.detach() - smooth).abs().max())
    assert error < 0.05 * float(waves.std())


def test_a_size_that_is_no_multiple_of_the_patch_is_refused_with_both() -> None:
    with pytest.raises(BadInput, match=r"patches of 8 pixels .* images of 50"):
        backbone().resize(50)


def test_a_frozen_position_stays_frozen_when_resized() -> None:
    model = backbone()
    model.vit.pos_embed.requires_grad_(False)
    model.resize(48)
    assert not model.vit.pos_embed.requires_grad


def test_names_outside_timm_s_list_become_an_architecture_with_options(tmp_path: Path) -> None:
    save_vit(tmp_path / "vit", class_token=False, global_pool="avg", depth=1)
    model = backbone(f"local-dir:{tmp_path / 'vit'}", options={})
    again = timm.create_model(model.name, img_size=32, patch_size=8, num_classes=0, **model.options)
    assert str(tmp_path) not in f"{model.name} {model.options}"
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in model.vit.named_parameters()}
