"""Prediction heads of the token level."""

from torch import Tensor, nn


class MaskedTokenHead(nn.Module):
    """Predicts masked tokens from an encoder's output at their positions and the embedding of the paired modality.

        logits = U gelu(norm(V (h + P f)))

    Args:
        width: of the encoder's tokens (W).
        dim: of the shared space (D).
        vocab_size: number of tokens to choose from (V).

    Source: masked vision-language modelling, arXiv:2204.07441; addition as the fusion is this project's reading.
    """

    def __init__(self, *, width: int, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.fuse = nn.Linear(dim, width, bias=False)
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.output = nn.Linear(width, vocab_size)

    def forward(self, hidden: Tensor, rows: Tensor, paired: Tensor) -> Tensor:
        """Score the vocabulary at masked positions.

        Args:
            hidden: (M, W) the encoder's output there.
            rows: (M,) the row in the batch, out of B, of each position.
            paired: (B, D) embedding of the other modality, from its unmasked input.

        Returns:
            (M, V) logits.
        """
        logits: Tensor = self.output(self.transform(hidden + self.fuse(paired)[rows]))
        return logits
