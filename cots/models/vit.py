"""The image backbone: a timm vision transformer with patch masking."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint

from cots.errors import BadInput
from cots.models.backbone import ImageBackbone
from cots.models.token_index import TokenIndex

CACHE_BYTES = 3 * 2**20  # bytes of bfloat16 activations at which a core is fastest (docs/performance.md)
SIZE_ARGUMENTS = ("img_size", "patch_size", "num_classes")  # timm's arguments that this class passes itself

POOLS = {"token": "class", "avg": "mean", "map": "attention"}  # timm's names of ways to pool

SAVED_MASK_NAME = "mask_embedding"  # name of `mask_token` on disk and in model digests


class VitBackbone(ImageBackbone):
    """Images to tokens.

    Args:
        name: a timm model of class VisionTransformer, by its timm name: `vit_base_patch16_224.augreg_in21k`,
            `hf-hub:owner/name`, or `local-dir:folder` with config.json and model.safetensors.
        pretrained: load the weights of `name`; position embeddings are interpolated to `size` and the
            patch embedding to `patch`.
        size: pixels along a side; patch: pixels along a patch's side.
        stem: "linear" is the ViT's own patch embedding; "convolutions" is a stack of small convolutions with the same
            output, always from random weights, which needs far fewer images to train (arXiv:2106.14881).
        options: further arguments of the timm model (embed_dim, depth, num_heads, ...).
        fused_attention: use scaled_dot_product_attention; on CPUs plain attention is faster for short sequences.

    Attributes:
        width: of a token (W).
        name, options: enough to build the same layers again without a hub or the original folder.

    Raises:
        BadInput: timm cannot build or load it, or it is not a plain vision transformer.
    """

    def __init__(
        self,
        *,
        name: str,
        pretrained: bool,
        size: int,
        patch: int,
        stem: str,
        options: dict[str, Any],
        fused_attention: bool,
    ) -> None:
        super().__init__()
        self.vit = build_vit(name, pretrained, {"img_size": size, "patch_size": patch, **options})
        for layer in self.vit.modules():
            if hasattr(layer, "fused_attn"):
                layer.fused_attn = fused_attention
        self.name, self.options = name, options
        if pretrained or ":" in name:
            built_with = {key: value for key, value in self.vit._model_args.items() if key not in SIZE_ARGUMENTS}
            self.name = self.vit.pretrained_cfg["architecture"]
            self.options = built_with | {"global_pool": self.vit.global_pool}
        self._checkpoint_settings: dict[str, Any] = {}
        if pretrained:
            published = self.vit.pretrained_cfg
            self._checkpoint_settings = {
                "mean": tuple(published["mean"]),
                "std": tuple(published["std"]),
                "pool": POOLS.get(self.vit.global_pool, "class" if self.has_class_token else "mean"),
            }
        self.width = self.vit.embed_dim
        if stem == "convolutions":
            self.vit.patch_embed.proj = conv_stem(self.width, patch)
        self.mask_token = nn.Parameter(torch.zeros(self.width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.register_state_dict_post_hook(_rename_mask_token_on_save)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_rename_mask_token_on_load)  # type: ignore[no-untyped-call]

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches: class and distillation token, registers."""
        return int(self.vit.num_prefix_tokens)

    @property
    def has_class_token(self) -> bool:
        """Whether the first token is a class token."""
        return bool(self.vit.has_class_token)

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, first to last."""
        return list(self.vit.blocks)

    @property
    def final_layers(self) -> list[nn.Module]:
        """The modules after the blocks."""
        pool = [self.vit.attn_pool] if self.vit.attn_pool is not None else []
        return [self.vit.norm, *pool, self.vit.fc_norm]

    @property
    def checkpoint_settings(self) -> dict[str, Any]:
        """Mean and standard deviation of the pixels and the way to pool, as timm stores them with the weights."""
        return self._checkpoint_settings

    @property
    def attention_pool(self) -> nn.Module | None:
        """SigLIP's pooling layer; None in other models."""
        pool: nn.Module | None = self.vit.attn_pool
        return pool

    def remove_attention_pool(self) -> None:
        """Remove SigLIP's pooling layer, if there is one."""
        self.vit.attn_pool = None

    @property
    def attentions(self) -> list[Any]:
        """Each block's attention, first to last."""
        return [block.attn for block in self.vit.blocks]

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W), normalized.

        Returns:
            (B, prefix + N, W) tokens after the last norm. In models with a norm after average pooling (`gap` in
            timm's names) that norm is applied to each token here.
        """
        return self._encode_patches(self.vit.patch_embed(images))

    def encode_lower(self, images: Tensor, num_blocks: int) -> Tensor:
        """Encode images (B, 3, H, W) to the tokens (B, prefix + N, W) after the first blocks."""
        tokens = self._add_positions(self.vit.patch_embed(images))
        for block in self.blocks[:num_blocks]:
            tokens = self._run_block(block, tokens)
        return tokens

    def encode_upper(self, tokens: Tensor, num_blocks: int) -> Tensor:
        """The output of `forward` from that of `encode_lower`."""
        for block in self.blocks[num_blocks:]:
            tokens = self._run_block(block, tokens)
        return self._final_norm(tokens)

    def forward_clean_and_masked(
        self, images: Tensor, bool_masked_pos: Tensor, *, positions: TokenIndex | None
    ) -> tuple[Tensor, Tensor]:
        """Encode images twice, unmasked and with patches masked, from one patch embedding.

        The mask token replaces patches after the projection and before positions are added, as in BEiT.

        Args:
            images: (B, 3, H, W), normalized.
            bool_masked_pos: (B, N) bool over patches in row order, True = masked.
            positions: A of the (B, prefix + N) tokens to return of the masked pass, whose last feed-forward layers then
                process no others; None for all.

        Returns:
            The output of `forward`, and that of the masked pass: all tokens, or (A, W) in row order.
        """
        patches = self.vit.patch_embed(images)  # (B, N, W); (B, rows, columns, W) with dynamic_img_size
        mask = bool_masked_pos.view(*patches.shape[:-1], 1)
        tokens = self._add_positions(torch.where(mask, self.mask_token.to(patches.dtype), patches))
        *blocks, last = self.vit.blocks
        for block in blocks:
            tokens = self._run_block(block, tokens)
        tokens = (
            self._run_block(last, tokens)
            if positions is None
            else self._run_block(partial(run_block_at, last, positions=positions), tokens)
        )
        return self._encode_patches(patches), self._final_norm(tokens)

    def micro_batch_size(self, images: Tensor) -> int:
        """The fastest number of images to encode at once: on a CPU as many as its cache holds, else all.

        The widest activations may take as much memory as the weights of a block, which are read once for all images.
        With FSDP all images go at once, because each pass gathers the weights anew.
        """
        if images.device.type != "cpu" or isinstance(self, FSDPModule):
            return max(len(images), 1)
        rows, columns = self.vit.patch_embed.patch_size
        if images.dim() == 3:
            tokens = images.shape[1]
        else:
            tokens = self.num_prefix_tokens + images.shape[2] * images.shape[3] // (rows * columns)
        max_bytes = max(CACHE_BYTES, 2 * 12 * self.width**2)
        return int(max(max_bytes // (2 * 4 * self.width * tokens), 1))

    def _encode_patches(self, patches: Tensor) -> Tensor:
        return self.encode_upper(self._add_positions(patches), 0)

    def _add_positions(self, patches: Tensor) -> Tensor:
        tokens: Tensor = self.vit.norm_pre(self.vit._pos_embed(patches))
        return tokens

    def _run_block(self, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        recompute = self.vit.grad_checkpointing and torch.is_grad_enabled()
        tokens: Tensor = checkpoint(block, *inputs, use_reentrant=False) if recompute else block(*inputs)
        return tokens

    def _final_norm(self, tokens: Tensor) -> Tensor:
        encoded: Tensor = self.vit.fc_norm(self.vit.norm(tokens))
        return encoded

    def set_grad_checkpointing(self) -> None:
        """Recompute activations inside the blocks in the backward pass instead of storing them."""
        self.vit.set_grad_checkpointing()

    @torch.no_grad()
    def resize(self, size: int) -> None:
        """Change the size of the input images; position embeddings are interpolated, all else stays the same.

        Args:
            size: pixels along a side.

        Raises:
            BadInput: not a multiple of the patch.
        """
        patch = self.vit.patch_embed.patch_size[0]
        if size % patch:
            raise BadInput(f"a model with patches of {patch} pixels cannot take images of {size}: give a multiple")
        self.vit.set_input_size(img_size=(size, size))


def build_vit(name: str, pretrained: bool, options: dict[str, Any]) -> Any:  # noqa: ANN401  timm is untyped
    """A timm vision transformer without classifier and pooling.

    Raises:
        BadInput: timm cannot build or load it, or it is not a plain vision transformer.
    """
    try:
        if pretrained:  # with num_classes=0 timm would leave missing weights random without an error
            vit = timm.create_model(name, pretrained=True, **options)
            vit.reset_classifier(0)
        else:
            vit = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (AssertionError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise BadInput(f"model.image: timm cannot build {name}: {type(error).__name__}: {reason}") from None
    if not isinstance(vit, VisionTransformer):
        kind = f"is a {type(vit).__name__}, not timm's VisionTransformer"
        raise BadInput(f"model.image: {name} {kind}: its patches cannot be masked; docs/encoders.md lists others")
    if type(vit.patch_embed) is not PatchEmbed:
        kind = f"embeds patches by {type(vit.patch_embed).__name__}"
        raise BadInput(f"model.image: {name} {kind}: the token level needs PatchEmbed; docs/encoders.md lists others")
    if not isinstance(vit.patch_drop, nn.Identity):
        raise BadInput("model.image.options.patch_drop_rate: the token level needs every patch: leave it out")
    return vit


def run_block_at(block: Any, tokens: Tensor, *, positions: TokenIndex) -> Tensor:  # noqa: ANN401  timm is untyped
    """The output of a block at some positions; these attend to all tokens of their image.

    Args:
        block: timm's; a plain `Block` without stochastic depth applies its feed-forward layers to these tokens only.
        tokens: (B, L, W); positions: of A of them.

    Returns:
        (A, W), in row order, as in `block(tokens)`.
    """
    if type(block) is not Block or not isinstance(block.drop_path2, nn.Identity):
        return positions.select(block(tokens))
    rows = positions.select(tokens + block.drop_path1(block.ls1(block.attn(block.norm1(tokens)))))
    selected: Tensor = rows + block.ls2(block.mlp(block.norm2(rows)))
    return selected


def conv_stem(width: int, patch: int) -> nn.Sequential:
    """Convolutions that halve the resolution to one position per patch and double the channels, and a projection.

    Args:
        width: channels out (W).
        patch: pixels along a patch's side, a power of two.

    Raises:
        BadInput: the patch size is not a power of two.

    Source: Early Convolutions Help Transformers See Better, arXiv:2106.14881.
    """
    halvings = patch.bit_length() - 1
    if patch != 2**halvings:
        raise BadInput(f"model.image.patch is {patch}: a convolutional stem needs a power of two")
    channels = [3, *(max(width >> (halvings - 1 - level), 16) for level in range(halvings))]
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.GroupNorm(1, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], width, 1))


def _rename_mask_token_on_save(_: nn.Module, state: OrderedDict[str, Tensor], prefix: str, *rest: object) -> None:
    state[prefix + SAVED_MASK_NAME] = state.pop(f"{prefix}mask_token")
    state.move_to_end(prefix + SAVED_MASK_NAME, last=False)  # first, as digests depend on the order


def _rename_mask_token_on_load(_: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    if (saved := prefix + SAVED_MASK_NAME) in state:
        state[f"{prefix}mask_token"] = state.pop(saved)
