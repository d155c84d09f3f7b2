"""One modality: a backbone over its tokens and a projection into the shared space."""

from itertools import chain
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cots.errors import BadInput
from cots.models.language import TextBackbone
from cots.models.places import Places
from cots.models.vision import VisionBackbone

Pool = Literal["class", "mean"]


class Encoded(NamedTuple):
    """What a stream makes of a batch."""

    tokens: Tensor  # (B, L, W) one vector a patch or word
    feature: Tensor  # (B, D) unit rows in the shared space


class Hidden(NamedTuple):
    """What the image stream makes of a batch with hidden patches."""

    tokens: Tensor  # (M, W) of the hidden patches, in row order
    feature: Tensor | None  # (B, D) unit rows in the shared space, where they were asked for


class Stream(nn.Module):
    """What both modalities share: which parts learn, and which activations are kept.

    Args:
        backbone: inputs to tokens.
        dim: of the shared space (D).
        pool: what is projected: the first token ("class") or the mean of the patches or words ("mean").
    """

    def __init__(self, backbone: VisionBackbone | TextBackbone, *, dim: int, pool: Pool) -> None:
        super().__init__()
        self.backbone, self.pool = backbone, pool
        self.projection = nn.Linear(backbone.width, dim)
        self.frozen: list[nn.Module] = []

    def freeze_but_last(self, n: int) -> None:
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

    def checkpoint_gradients(self) -> None:
        """Compute activations inside the blocks a second time for the gradients instead of keeping them.

        Raises:
            BadInput: the backbone's library offers none for this model.
        """
        self.backbone.checkpoint_gradients()

    def layers(self) -> list[list[nn.Parameter]]:
        """The backbone's parameters from the bottom: embeddings, then block by block. What follows is in none.

        Raises:
            BadInput: the backbone has no list of blocks.
        """
        blocks = [list(block.parameters()) for block in self.backbone.blocks]
        above = {id(p) for p in chain(*blocks, *(module.parameters() for module in self.backbone.final))}
        return [[p for p in self.backbone.parameters() if id(p) not in above], *blocks]


class ImageStream(Stream):
    """Pictures and clips. A clip's frames are encoded one by one and averaged before the projection.

    Args:
        backbone: pictures to tokens.
        dim: of the shared space (D).
        pool: what is projected: the class token ("class") or the mean of the patches ("mean").

    Raises:
        BadInput: the class token is asked for and the backbone has none.
    """

    backbone: VisionBackbone

    def __init__(self, backbone: VisionBackbone, *, dim: int, pool: Pool) -> None:
        if pool == "class" and not backbone.has_class_token:
            raise BadInput(f"model.image.pool is class, and {backbone.name} has no class token: give mean")
        super().__init__(backbone, dim=dim, pool=pool)

    def forward(self, frames: Tensor) -> Encoded:
        """Encode clips of T frames; pictures are clips of one.

        Args:
            frames: (B, T, 3, H, W), normalised.

        Returns:
            tokens (B * T, N, W) of the patches, feature (B, D).
        """
        return self._encoded(self.backbone(frames.flatten(0, 1)), len(frames))

    def clean_and_masked(self, frames: Tensor, masked: Tensor, *, view: bool) -> tuple[Encoded, Hidden]:
        """What `forward` gives, and a second pass in which some patches are hidden.

        Args:
            frames: (B, T, 3, H, W), normalised.
            masked: (B * T, N) bool, True = hidden patch; M of them in all.
            view: whether the second pass is wanted as a view of the picture, with a feature of its own.
        """
        hidden = Places.of(masked) if view else None
        clean, second = self.backbone.clean_and_masked(frames.flatten(0, 1), masked, everywhere=view)
        seen = self._encoded(clean, len(frames))
        if hidden is None:
            return seen, Hidden(second, None)
        dim = self._encoded(second, len(frames))
        return seen, Hidden(hidden.among(dim.tokens), dim.feature)

    def pooled(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` averages and projects: the patches' tokens (B * T, N, W), and every frame's own (B, T, W)."""
        return self._pooled(self.backbone(frames.flatten(0, 1)), len(frames))

    def _encoded(self, tokens: Tensor, clips: int) -> Encoded:
        patches, pooled = self._pooled(tokens, clips)
        return Encoded(patches, self.projected(pooled.mean(dim=1)))

    def _pooled(self, tokens: Tensor, clips: int) -> tuple[Tensor, Tensor]:
        patches = tokens[:, self.backbone.prefix :]
        pooled = tokens[:, 0] if self.pool == "class" else patches.mean(dim=1)
        return patches, pooled.view(clips, -1, pooled.shape[-1])

    def projected(self, pooled: Tensor) -> Tensor:
        """(..., W) to unit rows (..., D) of the shared space."""
        return unit(self.projection(pooled))


class TextStream(Stream):
    """Captions.

    Args:
        backbone: token ids to token vectors.
        dim: of the shared space (D).
        pool: what is projected: the first token ("class") or the mean of the text's tokens ("mean").
    """

    backbone: TextBackbone

    def forward(self, ids: Tensor, attended: Tensor) -> Encoded:
        """Encode token ids (B, L); `attended` is False at padding."""
        tokens = self.backbone(ids, attended)
        if self.pool == "class":
            return Encoded(tokens, unit(self.projection(tokens[:, 0])))
        weight = attended.to(tokens.dtype)
        pooled = torch.einsum("blw,bl->bw", tokens, weight / weight.sum(dim=1, keepdim=True))
        return Encoded(tokens, unit(self.projection(pooled)))


def compile_blocks(module: nn.Module) -> None:
    """Let torch.compile fuse what each block computes, from the next pass on, whose results differ by rounding.

    Args:
        module: with streams anywhere inside.

    Raises:
        BadInput: a backbone has no list of blocks.
    """
    for stream in [part for part in module.modules() if isinstance(part, Stream)]:
        for block in stream.backbone.blocks:
            block.compile()


def unit(features: Tensor) -> Tensor:
    """Rows of length one, in float32 at least, whatever the precision around."""
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
