"""The image backbone: a timm vision transformer that can hide patches."""

from itertools import pairwise

import timm
import torch
from torch import Tensor, nn


class VisionBackbone(nn.Module):
    """Pictures to tokens.

    Args:
        name: any timm model of the VisionTransformer family.
        pretrained: load timm's weights; position embeddings are resampled to `size`.
        size: pixels along a side; patch: pixels along a patch's side.
        stem: "linear" is the ViT's own patch embedding; "convolutions" is a stack of small ones with the same output,
            which learns from far fewer pictures (arXiv:2106.14881).
        options: further arguments of the timm model (embed_dim, depth, num_heads, ...).
        fused_attention: use scaled_dot_product_attention; plain attention is faster on CPUs at short lengths.
    """

    def __init__(
        self,
        *,
        name: str,
        pretrained: bool,
        size: int,
        patch: int,
        stem: str,
        options: dict[str, object],
        fused_attention: bool,
    ) -> None:
        super().__init__()
        self.vit = timm.create_model(
            name, pretrained=pretrained, img_size=size, patch_size=patch, num_classes=0, **options
        )
        for block in self.vit.blocks:
            block.attn.fused_attn = fused_attention
        self.width: int = self.vit.embed_dim
        if stem == "convolutions":
            self.vit.patch_embed.proj = convolutional_stem(self.width, patch)
        self.mask_embedding = nn.Parameter(torch.zeros(self.width))
        nn.init.trunc_normal_(self.mask_embedding, std=0.02)

    @property
    def prefix(self) -> int:
        """How many tokens stand before the patches; the first is the class token."""
        return int(self.vit.num_prefix_tokens)

    def forward(self, images: Tensor, masked: Tensor | None = None) -> Tensor:
        """Encode pictures, hiding patches after projection and before their position is added (BEiT).

        Args:
            images: (B, 3, H, W), normalised.
            masked: (B, N) bool over patches in row order, True = hidden; None hides nothing.

        Returns:
            (B, prefix + N, W) tokens after the last norm.
        """
        patches = self.vit.patch_embed(images)  # (B, N, W)
        if masked is not None:
            patches = torch.where(masked[..., None], self.mask_embedding.to(patches.dtype), patches)
        tokens = self.vit.norm_pre(self.vit._pos_embed(patches))
        encoded: Tensor = self.vit.norm(self.vit.blocks(tokens))
        return encoded


def convolutional_stem(width: int, patch: int) -> nn.Sequential:
    """Halve the picture until one position is one patch, doubling the channels, and project.

    Args:
        width: channels out (W).
        patch: pixels along a patch's side, a power of two.

    Raises:
        ValueError: the patch is no power of two.

    Source: Early Convolutions Help Transformers See Better, arXiv:2106.14881.
    """
    halvings = patch.bit_length() - 1
    if patch != 2**halvings:
        raise ValueError(f"model.image.patch is {patch}: a convolutional stem needs a power of two")
    channels = [3, *(max(width >> (halvings - 1 - level), 16) for level in range(halvings))]
    layers: list[nn.Module] = []
    for into, out in pairwise(channels):
        layers += [nn.Conv2d(into, out, 3, stride=2, padding=1, bias=False), nn.GroupNorm(1, out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], width, 1))
