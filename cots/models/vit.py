"""The image backbone: a timm vision transformer that can hide patches."""

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

CACHE_BYTES = 3 * 2**20  # bytes of activations in bf16 that a core works on best (docs/performance.md)
SIZE_ARGUMENTS = ("img_size", "patch_size", "num_classes")  # of timm's arguments, those that this class gives itself

SAVED_MASK_NAME = "mask_embedding"  # the name of `mask_token` on disk, and in the digests of models


class VitBackbone(ImageBackbone):
    """Pictures to tokens.

    Args:
        name: a timm model of class VisionTransformer, as timm spells it: `vit_base_patch16_224.augreg_in21k`,
            `hf-hub:owner/name`, or `local-dir:folder` with config.json and model.safetensors.
        pretrained: load the weights that `name` stands for; position embeddings are interpolated to `size` and the
            patch embedding to `patch`.
        size: pixels along a side; patch: pixels along a patch's side.
        stem: "linear" is the ViT's own patch embedding; "convolutions" is a stack of small ones with the same output,
            from random weights always, which learns from far fewer pictures (arXiv:2106.14881).
        options: further arguments of the timm model (embed_dim, depth, num_heads, ...).
        fused_attention: use scaled_dot_product_attention; plain attention is faster on CPUs at short lengths.

    Attributes:
        width: of a token (W).
        name, options: what builds the same layers again where neither hub nor folder is at hand.

    Raises:
        BadInput: timm cannot build or load it, or its layers are not a plain vision transformer's.
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
        self.width = self.vit.embed_dim
        if stem == "convolutions":
            self.vit.patch_embed.proj = conv_stem(self.width, patch)
        self.mask_token = nn.Parameter(torch.zeros(self.width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.register_state_dict_post_hook(_rename_mask_token_on_save)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_rename_mask_token_on_load)  # type: ignore[no-untyped-call]

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens stand before the patches: class and distillation token, registers."""
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
        """What follows the blocks."""
        return [self.vit.norm, self.vit.fc_norm]

    @property
    def attentions(self) -> list[Any]:
        """Each block's attention, first to last."""
        return [block.attn for block in self.vit.blocks]

    def forward(self, images: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            images: (B, 3, H, W), normalised.

        Returns:
            (B, prefix + N, W) tokens after the last norm. Models that norm after their average pooling (`gap` in
            timm's names) have that norm on each token here.
        """
        return self._encode_patches(self.vit.patch_embed(images))

    def forward_clean_and_masked(
        self, images: Tensor, bool_masked_pos: Tensor, *, positions: TokenIndex | None
    ) -> tuple[Tensor, Tensor]:
        """Encode pictures twice, as they are and with patches hidden, from one embedding of the patches.

        Patches are hidden after projection and before their position is added (BEiT).

        Args:
            images: (B, 3, H, W), normalised.
            masked: (B, N) bool over patches in row order, True = hidden.
            asked: which A of the (B, prefix + N) tokens are wanted of the masked pass, whose last feed-forward layers
                see no others; None for all.

        Returns:
            What `forward` returns; the same of the masked pass, or (A, W), its tokens in row order.
        """
        patches = self.vit.patch_embed(images)  # (B, N, W); (B, rows, columns, W) with dynamic_img_size
        hidden = bool_masked_pos.view(*patches.shape[:-1], 1)
        tokens = self._add_positions(torch.where(hidden, self.mask_token.to(patches.dtype), patches))
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
        """How many pictures are best encoded together: on a processor as many as its cache holds, else all.

        Their widest activations may take as much as the weights of a block, which are read for all of them. Weights
        that are shared out among processes are fetched for all pictures at once.
        """
        if images.device.type != "cpu" or isinstance(self, FSDPModule):
            return max(len(images), 1)
        rows, columns = self.vit.patch_embed.patch_size
        tokens = self.num_prefix_tokens + images.shape[2] * images.shape[3] // (rows * columns)
        room = max(CACHE_BYTES, 2 * 12 * self.width**2)
        return int(max(room // (2 * 4 * self.width * tokens), 1))

    def _encode_patches(self, patches: Tensor) -> Tensor:
        tokens = self._add_positions(patches)
        for block in self.vit.blocks:
            tokens = self._run_block(block, tokens)
        return self._final_norm(tokens)

    def _add_positions(self, patches: Tensor) -> Tensor:
        tokens: Tensor = self.vit.norm_pre(self.vit._pos_embed(patches))
        return tokens

    def _run_block(self, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        saving = self.vit.grad_checkpointing and torch.is_grad_enabled()
        tokens: Tensor = checkpoint(block, *inputs, use_reentrant=False) if saving else block(*inputs)
        return tokens

    def _final_norm(self, tokens: Tensor) -> Tensor:
        encoded: Tensor = self.vit.fc_norm(self.vit.norm(tokens))
        return encoded

    def set_grad_checkpointing(self) -> None:
        """Keep no activations inside the blocks: they are computed again when gradients are."""
        self.vit.set_grad_checkpointing()

    @torch.no_grad()
    def resize(self, size: int) -> None:
        """Take pictures of another size from now on; position embeddings are interpolated, all else stays.

        Args:
            size: pixels along a side.

        Raises:
            BadInput: not a multiple of the patch.
        """
        patch = self.vit.patch_embed.patch_size[0]
        if size % patch:
            raise BadInput(f"a model with patches of {patch} pixels cannot take pictures of {size}: give a multiple")
        self.vit.set_input_size(img_size=(size, size))


def build_vit(name: str, pretrained: bool, options: dict[str, Any]) -> Any:  # noqa: ANN401  timm is untyped
    """A timm vision transformer without its classifier and pooling.

    Raises:
        BadInput: timm cannot build or load it, or its layers are not a plain vision transformer's.
    """
    try:
        if pretrained:  # without its classifier timm would load what there is and leave the rest random
            vit = timm.create_model(name, pretrained=True, **options)
            vit.reset_classifier(0)
        else:
            vit = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (AssertionError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise BadInput(f"model.image: timm cannot build {name}: {type(error).__name__}: {reason}") from None
    if not isinstance(vit, VisionTransformer):
        kind = f"is a {type(vit).__name__}, not timm's VisionTransformer"
        raise BadInput(
            f"model.image: {name} {kind}: such a model cannot hide patches here; docs/streams.md lists others"
        )
    if type(vit.patch_embed) is not PatchEmbed:
        kind = f"makes its patches by {type(vit.patch_embed).__name__}"
        raise BadInput(
            f"model.image: {name} {kind}: only plain patches fit the token level; docs/streams.md lists others"
        )
    if not isinstance(vit.patch_drop, nn.Identity):
        raise BadInput("model.image.options.patch_drop_rate: the token level needs every patch: leave it out")
    vit.attn_pool = None  # SigLIP's: a stream pools by its class token or the mean
    return vit


def run_block_at(block: Any, tokens: Tensor, *, positions: TokenIndex) -> Tensor:  # noqa: ANN401  timm is untyped
    """What a block makes of some of the tokens, each of which attends to all tokens of its picture.

    Args:
        block: timm's; of a plain `Block` without stochastic depth the feed-forward layers see these tokens alone.
        tokens: (B, L, W); asked: which A of them.

    Returns:
        (A, W), in row order: those of `block(tokens)`.
    """
    if type(block) is not Block or not isinstance(block.drop_path2, nn.Identity):
        return positions.select(block(tokens))
    rows = positions.select(tokens + block.drop_path1(block.ls1(block.attn(block.norm1(tokens)))))
    chosen: Tensor = rows + block.ls2(block.mlp(block.norm2(rows)))
    return chosen


def conv_stem(width: int, patch: int) -> nn.Sequential:
    """Halve the picture until one position is one patch, doubling the channels, and project.

    Args:
        width: channels out (W).
        patch: pixels along a patch's side, a power of two.

    Raises:
        BadInput: the patch is no power of two.

    Source: Early Convolutions Help Transformers See Better, arXiv:2106.14881.
    """
    halvings = patch.bit_length() - 1
    if patch != 2**halvings:
        raise BadInput(f"model.image.patch is {patch}: a convolutional stem needs a power of two")
    channels = [3, *(max(width >> (halvings - 1 - level), 16) for level in range(halvings))]
    layers: list[nn.Module] = []
    for into, out in pairwise(channels):
        layers += [nn.Conv2d(into, out, 3, stride=2, padding=1, bias=False), nn.GroupNorm(1, out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], width, 1))


def _rename_mask_token_on_save(_: nn.Module, state: OrderedDict[str, Tensor], prefix: str, *rest: object) -> None:
    state[prefix + SAVED_MASK_NAME] = state.pop(f"{prefix}mask_token")
    state.move_to_end(prefix + SAVED_MASK_NAME, last=False)  # digests follow the order, in which it came first


def _rename_mask_token_on_load(_: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    if (saved := prefix + SAVED_MASK_NAME) in state:
        state[f"{prefix}mask_token"] = state.pop(saved)
