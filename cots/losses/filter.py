"""The adaptive momentum filter drops pairs whose similarity is far below the running mean, as probable noise."""

import math

import torch
from torch import Tensor, nn

from cots.distributed import rank_slices


class AdaptiveMomentumFilter(nn.Module):
    """Running mean and standard deviation of the pair similarity, and the threshold computed from them.

        keep pair  <=>  s >= mean - num_std * std,     s = k_image . k_text of the momentum encoders

    Mean and mean square are exponential moving averages over steps, corrected for their start at zero as in Adam.
    Reading and updating them are separate methods, so that a forward pass changes nothing.

    Args:
        warmup_steps: steps before any pair is dropped; nothing is known, and so dropped, before the first one.
        num_std: distance of the threshold below the mean, in standard deviations; None drops nothing, but the
            statistics are still updated.
        momentum: of the moving averages, per step, in [0, 1).

    Source: COTS, arXiv:2204.07441, adaptive momentum filter; the two-sigma rule is unverified (docs/paper.md).
    """

    ema_mean: Tensor
    ema_square: Tensor
    steps: Tensor

    def __init__(self, *, warmup_steps: int, num_std: float | None, momentum: float) -> None:
        super().__init__()
        self.warmup_steps = warmup_steps
        self.num_std = num_std
        self.momentum: float = momentum
        self.register_buffer("ema_mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("ema_square", torch.zeros((), dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def mean(self) -> float:
        """Running mean of the similarity; 0 before the first step."""
        return float(self.ema_mean) / self._bias_correction()

    @property
    def std(self) -> float:
        """Running standard deviation of the similarity."""
        return math.sqrt(max(float(self.ema_square) / self._bias_correction() - self.mean**2, 0.0))

    @property
    def threshold(self) -> float:
        """Pairs below it are dropped; minus infinity during warm-up or if nothing is to be dropped."""
        if self.num_std is None or int(self.steps) < max(self.warmup_steps, 1):
            return float("-inf")
        return self.mean - self.num_std * self.std

    def _bias_correction(self) -> float:
        steps = int(self.steps)
        return 1.0 - math.pow(self.momentum, steps) if steps else 1.0

    def keep_mask(self, similarity: Tensor) -> Tensor:
        """(B,) bool, True = keep. If every pair is below the threshold, all are kept: no batch is dropped whole."""
        above = similarity >= self.threshold
        return above if bool(above.any()) else torch.ones_like(above)

    @torch.no_grad()
    def update(self, similarity: Tensor) -> None:
        """Update the statistics with the similarities (B,) of one step, dropped pairs included."""
        similarity = similarity.double()
        self.ema_mean.lerp_(similarity.mean(), 1 - self.momentum)
        self.ema_square.lerp_(similarity.square().mean(), 1 - self.momentum)
        self.steps.add_(1)


def keep_at_least(keep_mask: Tensor, similarity: Tensor, *, min_kept: int) -> Tensor:
    """A keep mask in which every rank keeps at least `min_kept` pairs: those of highest similarity are added.

    Args:
        keep_mask: (B,) bool; similarity: (B,); of the global batch, ranks concatenated.
        min_kept: pairs of each rank; a rank with fewer keeps all of them.

    Returns:
        (B,) bool, the same on every rank.
    """
    first = similarity.masked_fill(keep_mask, float("inf"))
    keep_mask = keep_mask.clone()
    for share in rank_slices(len(keep_mask)):
        keep_mask[share.start + first[share].argsort(descending=True, stable=True)[:min_kept]] = True
    return keep_mask
