"""Prediction heads of the token level: what was hidden here, given the paired modality?"""

from torch import Tensor, nn


class MaskedTokenHead(nn.Module):
    """Predict tokens from a stream's output at hidden positions plus the paired modality's global feature.

        logits = U gelu(norm(V (h + P f)))

    Args:
        width: of the stream's tokens (W).
        dim: of the shared space (D).
        vocab: number of tokens to choose from (V).

    Source: masked vision-language modelling, arXiv:2204.07441; addition as the fusion is this project's reading.
    """

    def __init__(self, *, width: int, dim: int, vocab: int) -> None:
        super().__init__()
        self.fuse = nn.Linear(dim, width, bias=False)
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.output = nn.Linear(width, vocab)

    def forward(self, hidden: Tensor, rows: Tensor, paired: Tensor) -> Tensor:
        """Score the vocabulary at hidden positions.

        Args:
            hidden: (M, W) the stream's tokens there.
            rows: (M,) which of the B each belongs to.
            paired: (B, D) global feature of the other modality, from its unmasked input.

        Returns:
            (M, V) logits.
        """
        logits: Tensor = self.output(self.transform(hidden + self.fuse(paired)[rows]))
        return logits
