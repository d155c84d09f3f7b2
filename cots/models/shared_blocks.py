"""Transformer blocks that both encoders share, above their backbones."""

from typing import Any

from timm.models.vision_transformer import Block
from torch import Tensor, nn

from cots.devices import default_device

HEAD_WIDTH = 64  # of an attention head, as in ViT and BERT


class SharedBlocks(nn.Module):
    """Blocks that encode the tokens of either modality with the same weights.

    The image encoder and the text encoder hold the same module, so that a gradient from either changes it for both.

    Args:
        dim: width of a token, that of the shared space (D).
        num_blocks: number of blocks (n), >= 1; pre-norm, with heads of 64 channels or one head where D is no multiple.

    Source: the weight-sharing transformer of COOKIE (ICCV 2021), there above a BERT and region features; tokens of
    width D and blocks of timm are this project's.
    """

    def __init__(self, *, dim: int, num_blocks: int) -> None:
        super().__init__()
        heads = dim // HEAD_WIDTH if dim % HEAD_WIDTH == 0 else 1
        blocks: list[Any] = [Block(dim, heads, qkv_bias=True) for _ in range(num_blocks)]
        for block in blocks:
            block.attn.fused_attn = default_device().type != "cpu"
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Encode tokens.

        Args:
            tokens: (B, L, D); attention_mask: (B, L) bool, False = padding; None: there is none.

        Returns:
            (B, L, D), after a last norm.
        """
        attended = None if attention_mask is None else attention_mask[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, attn_mask=attended)
        normed: Tensor = self.norm(tokens)
        return normed
