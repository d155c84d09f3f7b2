"""One modality: a backbone over its tokens and a projection into the shared space."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cots.models.language import TextBackbone
from cots.models.vision import VisionBackbone

Pool = Literal["class", "mean"]


class Encoded(NamedTuple):
    """What a stream makes of a batch."""

    tokens: Tensor  # (B, L, W) one vector a patch or word
    feature: Tensor  # (B, D) unit rows in the shared space


class ImageStream(nn.Module):
    """Pictures and clips. A clip's frames are encoded one by one and averaged before the projection.

    Args:
        backbone: pictures to tokens.
        dim: of the shared space (D).
        pool: what is projected: the class token ("class") or the mean of the patches ("mean").
    """

    def __init__(self, backbone: VisionBackbone, *, dim: int, pool: Pool) -> None:
        super().__init__()
        self.backbone, self.pool = backbone, pool
        self.projection = nn.Linear(backbone.width, dim)

    def forward(self, frames: Tensor, masked: Tensor | None = None) -> Encoded:
        """Encode clips of T frames; pictures are clips of one.

        Args:
            frames: (B, T, 3, H, W), normalised.
            masked: (B * T, N) bool, True = hidden patch.

        Returns:
            tokens (B * T, N, W) of the patches, feature (B, D).
        """
        batch, num_frames = frames.shape[:2]
        tokens = self.backbone(frames.flatten(0, 1), masked)
        patches = tokens[:, self.backbone.prefix :]
        pooled = tokens[:, 0] if self.pool == "class" else patches.mean(dim=1)
        return Encoded(patches, unit(self.projection(pooled.view(batch, num_frames, -1).mean(dim=1))))


class TextStream(nn.Module):
    """Captions.

    Args:
        backbone: token ids to token vectors.
        dim: of the shared space (D).
        pool: what is projected: the first token ("class") or the mean of the text's tokens ("mean").
    """

    def __init__(self, backbone: TextBackbone, *, dim: int, pool: Pool) -> None:
        super().__init__()
        self.backbone, self.pool = backbone, pool
        self.projection = nn.Linear(backbone.width, dim)

    def forward(self, ids: Tensor, attended: Tensor) -> Encoded:
        """Encode token ids (B, L); `attended` is False at padding."""
        tokens = self.backbone(ids, attended)
        if self.pool == "class":
            return Encoded(tokens, unit(self.projection(tokens[:, 0])))
        weight = attended.to(tokens.dtype)
        pooled = torch.einsum("blw,bl->bw", tokens, weight / weight.sum(dim=1, keepdim=True))
        return Encoded(tokens, unit(self.projection(pooled)))


def unit(features: Tensor) -> Tensor:
    """Rows of length one, in float32 whatever the precision around."""
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(features.float(), dim=-1)
