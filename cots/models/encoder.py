"""The encoder of one modality: a backbone and a projection into the shared space."""

from itertools import chain
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from cots.errors import BadInput
from cots.models.backbone import ImageBackbone, TextBackbone
from cots.models.token_index import TokenIndex

if TYPE_CHECKING:
    from cots.models.shared_blocks import SharedBlocks  # imports timm, which texts alone do not need

Pool = Literal["class", "mean", "attention", "last"]

TEXTS_AT_ONCE = 128  # that are trained on together on a processor; of more, those of similar length, for less padding


class MaskedOutput(NamedTuple):
    """An encoder's output for a batch with masked patches or tokens."""

    tokens: Tensor  # (M, W) at the masked positions, in row order
    embedding: Tensor | None  # (B, D) unit rows in the shared space, if requested


class Encoder(nn.Module):
    """Common to both modalities: freezing and gradient checkpointing.

    Args:
        backbone: inputs to tokens.
        dim: of the shared space (D).
        pool: what is projected; each modality has its own ways.
        shared: blocks between backbone and pooling, which the other modality's encoder holds too; None: no such blocks.
    """

    def __init__(
        self, backbone: ImageBackbone | TextBackbone, *, dim: int, pool: Pool, shared: "SharedBlocks | None" = None
    ) -> None:
        super().__init__()
        self.backbone, self.pool, self.shared = backbone, pool, shared
        self.shared_input = nn.Linear(backbone.width, dim) if shared else None
        self.projection = nn.Linear(dim if shared else backbone.width, dim)
        self.frozen: list[nn.Module] = []

    def freeze_except_last(self, n: int) -> None:
        """Train only the last n blocks of the backbone, its final norm, shared blocks and the projection.

        Embeddings, the mask token included, are frozen even if n covers all blocks; to train a whole encoder, do not
        call this. Frozen parts stay in evaluation mode, without dropout.

        Args:
            n: number of last blocks, >= 0; more than there are means all.

        Raises:
            BadInput: the backbone has no list of blocks.

        Source: code of the same authors trains blocks 6 to 11 of 12; `all` or the last n is this project's parameter.
        """
        blocks = self.backbone.blocks
        trainable = [*blocks[max(len(blocks) - n, 0) :], *self.backbone.final_layers, *self.layers_above]
        self.requires_grad_(False)
        for module in trainable:
            module.requires_grad_(True)
        parts = {id(part) for module in trainable for part in module.modules()}
        self.frozen = [m for m in self.modules() if not any(id(part) in parts for part in m.modules())]
        self.train(self.training)

    def lock(self) -> None:
        """Train only shared blocks and the projection; the backbone stays as it is and in evaluation mode.

        Source: LiT, arXiv:2111.07991, locks the image tower.
        """
        self.backbone.requires_grad_(False)
        self.frozen = [*self.backbone.modules()]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    @property
    def layers_above(self) -> list[nn.Module]:
        """The modules above the backbone: shared blocks with their input, and the projection."""
        return [module for module in (self.shared_input, self.shared, self.projection) if module is not None]

    def encode_shared(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The backbone's tokens (B, L, W) after the shared blocks, (B, L, D); the tokens as they are without them."""
        if self.shared is None or self.shared_input is None:
            return tokens
        encoded: Tensor = self.shared(self.shared_input(tokens), attention_mask)
        return encoded

    def set_grad_checkpointing(self) -> None:
        """Recompute activations inside the blocks in the backward pass instead of storing them.

        Raises:
            BadInput: the backbone's library does not support it for this model.
        """
        self.backbone.set_grad_checkpointing()

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """The backbone's parameters by depth: embeddings, then block by block; the final layers are in no group.

        Raises:
            BadInput: the backbone has no list of blocks.
        """
        blocks = [list(block.parameters()) for block in self.backbone.blocks]
        above = {id(p) for p in chain(*blocks, *(module.parameters() for module in self.backbone.final_layers))}
        return [[p for p in self.backbone.parameters() if id(p) not in above], *blocks]


class ImageEncoder(Encoder):
    """Encodes images and videos. Frames are encoded one by one and averaged before the projection.

    Args:
        backbone: images to tokens.
        dim: of the shared space (D).
        pool: "class" projects the class token, "mean" the mean of the patches, "attention" the output of the
            backbone's own pooling layer, as in SigLIP.

    Attributes:
        num_lower_blocks: first blocks, whose output `forward` takes in place of pixels.

    Raises:
        BadInput: the backbone has no class token or no pooling layer, and pool asks for it; or pool is "attention" and
            there are shared blocks.
    """

    backbone: ImageBackbone

    def __init__(self, backbone: ImageBackbone, *, dim: int, pool: Pool, shared: "SharedBlocks | None" = None) -> None:
        if pool == "class" and not backbone.has_class_token:
            raise BadInput(f"model.image.pool is class, and {backbone.name} has no class token: give mean")
        if pool == "attention" and backbone.attention_pool is None:
            raise BadInput(
                f"model.image.pool is attention, and {backbone.name} has no layer for it: give class or mean"
            )
        if pool == "attention" and shared is not None:
            raise BadInput("model.image.pool is attention, which pools before shared blocks: give class or mean")
        if pool != "attention":
            backbone.remove_attention_pool()
        super().__init__(backbone, dim=dim, pool=pool, shared=shared)
        self.num_lower_blocks = 0

    def forward(self, frames: Tensor) -> Tensor:
        """Encode videos of T frames; an image is a video of one.

        Args:
            frames: (B, T, 3, H, W), normalized; or (B, T, L, W), the output of their first `num_lower_blocks`.

        Returns:
            (B, D) unit rows.
        """
        return self.project(self.pool_frames(frames).mean(dim=1))

    def forward_clean_and_masked(
        self, frames: Tensor, bool_masked_pos: Tensor, *, embed_masked: bool
    ) -> tuple[Tensor, MaskedOutput]:
        """The output of `forward`, and that of a second pass with some patches masked.

        Args:
            frames: (B, T, 3, H, W), normalized.
            bool_masked_pos: (B * T, N) bool, True = masked patch; M of them in all.
            embed_masked: whether the second pass is to return an embedding too.
        """
        clean, masked, tokens = [], [], []
        images = frames.flatten(0, 1)
        for piece, mask in zip(
            self._micro_batches(images),
            torch.split(bool_masked_pos, self.backbone.micro_batch_size(images)),
            strict=True,
        ):
            positions = TokenIndex.from_mask(mask).shift(self.backbone.num_prefix_tokens)
            clean_tokens, masked_tokens = self.backbone.forward_clean_and_masked(
                piece, mask, positions=None if embed_masked else positions
            )
            clean.append(self.pool_tokens(clean_tokens))
            if embed_masked:
                masked.append(self.pool_tokens(masked_tokens))
            tokens.append(positions.select(masked_tokens) if embed_masked else masked_tokens)
        embedding = self._embed(masked, frames) if embed_masked else None
        return self._embed(clean, frames), MaskedOutput(torch.cat(tokens), embedding)

    def pool_frames(self, frames: Tensor) -> Tensor:
        """Pooled vectors (B, T, W) of frames as in `forward`, which averages and projects them."""
        return self._group_frames(
            [self.pool_tokens(self._encode(piece)) for piece in self._micro_batches(frames.flatten(0, 1))], frames
        )

    def _encode(self, images: Tensor) -> Tensor:
        """The backbone's tokens of images (B, 3, H, W), or from the output (B, L, W) of their lower blocks."""
        if images.dim() == 3:
            return self.backbone.encode_upper(images, self.num_lower_blocks)
        tokens: Tensor = self.backbone(images)
        return tokens

    def _micro_batches(self, images: Tensor) -> tuple[Tensor, ...]:
        """Split images into groups that the backbone encodes at once; only pooled or selected tokens are stored."""
        return torch.split(images, self.backbone.micro_batch_size(images))

    def pool_tokens(self, tokens: Tensor) -> Tensor:
        """Each image's vector, (B, W), or (B, D) of shared blocks, from the backbone's tokens (B, prefix + N, W)."""
        if self.backbone.attention_pool is not None:
            pooled: Tensor = self.backbone.attention_pool(tokens)
            return pooled
        tokens = self.encode_shared(tokens)
        return tokens[:, 0] if self.pool == "class" else tokens[:, self.backbone.num_prefix_tokens :].mean(dim=1)

    def _group_frames(self, pooled: list[Tensor], frames: Tensor) -> Tensor:
        by_image = torch.cat(pooled)
        return by_image.view(*frames.shape[:2], by_image.shape[-1])

    def _embed(self, pooled: list[Tensor], frames: Tensor) -> Tensor:
        return self.project(self._group_frames(pooled, frames).mean(dim=1))

    def project(self, pooled: Tensor) -> Tensor:
        """(..., W) to unit rows (..., D) of the shared space."""
        return l2_normalize(self.projection(pooled))


class TextEncoder(Encoder):
    """Encodes texts.

    Args:
        backbone: token ids to token vectors.
        dim: of the shared space (D).
        pool: "class" projects the first token, "last" the last one, "mean" the mean; padding does not count.
    """

    backbone: TextBackbone

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode texts.

        Args:
            input_ids: (B, L) token ids; attention_mask: (B, L) bool, False = padding, which is at the end.

        Returns:
            (B, D) unit rows.
        """
        splits = self.training and input_ids.is_cpu and not isinstance(self.backbone, FSDPModule)
        if not splits or len(input_ids) <= TEXTS_AT_ONCE:
            return self._embed(self.backbone(input_ids, attention_mask), attention_mask)
        lengths, order = attention_mask.sum(dim=1).sort(stable=True)
        embeddings = []
        for rows, ends in zip(*(torch.split(values, TEXTS_AT_ONCE) for values in (order, lengths)), strict=True):
            ids, mask = input_ids[rows, : ends[-1]], attention_mask[rows, : ends[-1]]
            embeddings.append(self._embed(self.backbone(ids, mask), mask))
        return torch.cat(embeddings)[order.argsort()]

    def forward_masked(
        self, input_ids: Tensor, attention_mask: Tensor, positions: TokenIndex, *, embed_masked: bool
    ) -> MaskedOutput:
        """Encode texts in which some tokens are masked.

        Args:
            input_ids: (B, L) token ids; attention_mask: (B, L) bool, False = padding.
            positions: the M tokens to return.
            embed_masked: whether to return an embedding of the masked text too.
        """
        if not embed_masked:
            return MaskedOutput(self.backbone.encode_at(input_ids, attention_mask, positions), None)
        tokens = self.backbone(input_ids, attention_mask)
        return MaskedOutput(positions.select(tokens), self._embed(tokens, attention_mask))

    def _embed(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.encode_shared(tokens, attention_mask)
        if self.pool == "class":
            return l2_normalize(self.projection(tokens[:, 0]))
        if self.pool == "last":
            last = attention_mask.sum(dim=1) - 1
            return l2_normalize(self.projection(tokens[torch.arange(tokens.shape[0], device=tokens.device), last]))
        weight = attention_mask.to(tokens.dtype)
        pooled = torch.einsum("blw,bl->bw", tokens, weight / weight.sum(dim=1, keepdim=True))
        return l2_normalize(self.projection(pooled))


def compile_blocks(module: nn.Module) -> None:
    """Compile each block with torch.compile from the next pass on; results differ by rounding.

    Args:
        module: contains encoders at any depth.

    Raises:
        BadInput: a backbone has no list of blocks.
    """
    for encoder in [part for part in module.modules() if isinstance(part, Encoder)]:
        for block in encoder.backbone.blocks:
            block.compile()


def l2_normalize(embeddings: Tensor) -> Tensor:
    """Rows of length one, in float32 at least, autocast or not."""
    with torch.autocast(embeddings.device.type, enabled=False):
        return F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=-1)
