"""One modality: a backbone over its tokens and a projection into the shared space."""

from itertools import chain
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cots.errors import BadInput
from cots.models.backbone import ImageBackbone, TextBackbone
from cots.models.token_index import TokenIndex

Pool = Literal["class", "mean"]


class MaskedOutput(NamedTuple):
    """What a stream makes of a batch with hidden patches or words."""

    tokens: Tensor  # (M, W) of the hidden ones, in row order
    embedding: Tensor | None  # (B, D) unit rows in the shared space, where they were asked for


class Encoder(nn.Module):
    """What both modalities share: which parts learn, and which activations are kept.

    Args:
        backbone: inputs to tokens.
        dim: of the shared space (D).
        pool: what is projected: the first token ("class") or the mean of the patches or words ("mean").
    """

    def __init__(self, backbone: ImageBackbone | TextBackbone, *, dim: int, pool: Pool) -> None:
        super().__init__()
        self.backbone, self.pool = backbone, pool
        self.projection = nn.Linear(backbone.width, dim)
        self.frozen: list[nn.Module] = []

    def freeze_except_last(self, n: int) -> None:
        """Let only the last n blocks learn, with what follows them: the final norm and the projection.

        Embeddings, the vector that stands for a hidden patch among them, never learn after this, even if n reaches
        all blocks; to train a whole stream, leave this out. Frozen parts stay in evaluation mode: no dropout there.

        Args:
            n: blocks counted from the last, >= 0; more than there are means all.

        Raises:
            BadInput: the backbone has no list of blocks.

        Source: code of the same authors trains blocks 6 to 11 of 12; `all` or the last n is this project's parameter.
        """
        blocks = self.backbone.blocks
        learning = [*blocks[max(len(blocks) - n, 0) :], *self.backbone.final, self.projection]
        self.requires_grad_(False)
        for module in learning:
            module.requires_grad_(True)
        parts = {id(part) for module in learning for part in module.modules()}
        self.frozen = [m for m in self.modules() if not any(id(part) in parts for part in m.modules())]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode, or evaluation mode; frozen parts stay in the latter."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def set_grad_checkpointing(self) -> None:
        """Compute activations inside the blocks a second time for the gradients instead of keeping them.

        Raises:
            BadInput: the backbone's library offers none for this model.
        """
        self.backbone.set_grad_checkpointing()

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """The backbone's parameters from the bottom: embeddings, then block by block. What follows is in none.

        Raises:
            BadInput: the backbone has no list of blocks.
        """
        blocks = [list(block.parameters()) for block in self.backbone.blocks]
        above = {id(p) for p in chain(*blocks, *(module.parameters() for module in self.backbone.final))}
        return [[p for p in self.backbone.parameters() if id(p) not in above], *blocks]


class ImageEncoder(Encoder):
    """Pictures and clips. A clip's frames are encoded one by one and averaged before the projection.

    Args:
        backbone: pictures to tokens.
        dim: of the shared space (D).
        pool: what is projected: the class token ("class") or the mean of the patches ("mean").

    Raises:
        BadInput: the class token is asked for and the backbone has none.
    """

    backbone: ImageBackbone

    def __init__(self, backbone: ImageBackbone, *, dim: int, pool: Pool) -> None:
        if pool == "class" and not backbone.has_class_token:
            raise BadInput(f"model.image.pool is class, and {backbone.name} has no class token: give mean")
        super().__init__(backbone, dim=dim, pool=pool)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode clips of T frames; pictures are clips of one.

        Args:
            frames: (B, T, 3, H, W), normalised.

        Returns:
            (B, D) unit rows.
        """
        return self.project(self.pool_frames(frames).mean(dim=1))

    def forward_clean_and_masked(self, frames: Tensor, masked: Tensor, *, view: bool) -> tuple[Tensor, MaskedOutput]:
        """What `forward` gives, and a second pass in which some patches are hidden.

        Args:
            frames: (B, T, 3, H, W), normalised.
            masked: (B * T, N) bool, True = hidden patch; M of them in all.
            view: whether the second pass is wanted as a view of the picture, with a feature of its own.
        """
        clean, dim, tokens = [], [], []
        images = frames.flatten(0, 1)
        for piece, mask in zip(
            self._micro_batches(images), torch.split(masked, self.backbone.micro_batch_size(images)), strict=True
        ):
            hidden = TokenIndex.of(mask).shifted_by(self.backbone.num_prefix_tokens)
            seen, other = self.backbone.forward_clean_and_masked(piece, mask, asked=None if view else hidden)
            clean.append(self.pool_tokens(seen))
            if view:
                dim.append(self.pool_tokens(other))
            tokens.append(hidden.select(other) if view else other)
        feature = self._embed(dim, frames) if view else None
        return self._embed(clean, frames), MaskedOutput(torch.cat(tokens), feature)

    def pool_frames(self, frames: Tensor) -> Tensor:
        """What `forward` averages and projects: every frame's own vector, (B, T, W)."""
        return self._clips(
            [self.pool_tokens(self.backbone(piece)) for piece in self._micro_batches(frames.flatten(0, 1))], frames
        )

    def _micro_batches(self, images: Tensor) -> tuple[Tensor, ...]:
        """What goes through the backbone together; of its tokens nothing is kept but what is asked."""
        return torch.split(images, self.backbone.micro_batch_size(images))

    def pool_tokens(self, tokens: Tensor) -> Tensor:
        """Each picture's own vector (B, W), from the backbone's tokens (B, prefix + N, W)."""
        return tokens[:, 0] if self.pool == "class" else tokens[:, self.backbone.num_prefix_tokens :].mean(dim=1)

    def _clips(self, pooled: list[Tensor], frames: Tensor) -> Tensor:
        whole = torch.cat(pooled)
        return whole.view(*frames.shape[:2], whole.shape[-1])

    def _embed(self, pooled: list[Tensor], frames: Tensor) -> Tensor:
        return self.project(self._clips(pooled, frames).mean(dim=1))

    def project(self, pooled: Tensor) -> Tensor:
        """(..., W) to unit rows (..., D) of the shared space."""
        return l2_normalize(self.projection(pooled))


class TextEncoder(Encoder):
    """Captions.

    Args:
        backbone: token ids to token vectors.
        dim: of the shared space (D).
        pool: what is projected: the first token ("class") or the mean of the text's tokens ("mean").
    """

    backbone: TextBackbone

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode texts.

        Args:
            ids: (B, L) token ids; attended: (B, L) bool, False at padding.

        Returns:
            (B, D) unit rows.
        """
        return self._embed(self.backbone(input_ids, attention_mask), attention_mask)

    def forward_masked(
        self, input_ids: Tensor, attention_mask: Tensor, hidden: TokenIndex, *, view: bool
    ) -> MaskedOutput:
        """Encode texts in which some words are hidden.

        Args:
            ids: (B, L) token ids; attended: (B, L) bool, False at padding.
            hidden: which M of the words are asked.
            view: whether the pass is wanted as a view of the text, with a feature of its own.
        """
        if not view:
            return MaskedOutput(self.backbone.encode_at(input_ids, attention_mask, hidden), None)
        tokens = self.backbone(input_ids, attention_mask)
        return MaskedOutput(hidden.select(tokens), self._embed(tokens, attention_mask))

    def _embed(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        if self.pool == "class":
            return l2_normalize(self.projection(tokens[:, 0]))
        weight = attention_mask.to(tokens.dtype)
        pooled = torch.einsum("blw,bl->bw", tokens, weight / weight.sum(dim=1, keepdim=True))
        return l2_normalize(self.projection(pooled))


def compile_blocks(module: nn.Module) -> None:
    """Let torch.compile fuse what each block computes, from the next pass on, whose results differ by rounding.

    Args:
        module: with streams anywhere inside.

    Raises:
        BadInput: a backbone has no list of blocks.
    """
    for stream in [part for part in module.modules() if isinstance(part, Encoder)]:
        for block in stream.backbone.blocks:
            block.compile()


def l2_normalize(embeddings: Tensor) -> Tensor:
    """Rows of length one, in float32 at least, whatever the precision around."""
    with torch.autocast(embeddings.device.type, enabled=False):
        return F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=-1)
