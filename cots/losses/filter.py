"""The adaptive momentum filter: pairs whose similarity falls far below the running mean are taken for noise."""

import math

import torch
from torch import Tensor, nn

from cots.distributed import rank_slices


class AdaptiveMomentumFilter(nn.Module):
    """Running statistics of the pair similarity, and the threshold that follows from them.

        keep pair  <=>  s >= mu - deviations * sigma,     s = k_image . k_text of the momentum streams

    mu and sigma are exponential moving averages over steps, unbiased for the zero start. Reading and moving the
    statistics are two methods, so that a forward pass changes nothing.

    Args:
        warmup: steps in which every pair is kept.
        deviations: how many sigma below the mean the threshold lies; None drops nothing, and the statistics still run.
        momentum: of the running averages, per step, in [0, 1).

    Source: COTS, arXiv:2204.07441, adaptive momentum filter; the two-sigma rule is unverified (docs/paper.md).
    """

    ema_mean: Tensor
    ema_square: Tensor
    steps: Tensor

    def __init__(self, *, warmup: int, deviations: float | None, momentum: float) -> None:
        super().__init__()
        self.warmup = warmup
        self.deviations = deviations
        self.momentum: float = momentum
        self.register_buffer("ema_mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("ema_square", torch.zeros((), dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def mean(self) -> float:
        """Running mean of the similarity; 0 before the first step."""
        return float(self.ema_mean) / self._mass()

    @property
    def sigma(self) -> float:
        """Running standard deviation of the similarity."""
        return math.sqrt(max(float(self.ema_square) / self._mass() - self.mean**2, 0.0))

    @property
    def threshold(self) -> float:
        """Pairs below it are dropped; minus infinity while warming up, or where nothing is dropped."""
        if self.deviations is None or int(self.steps) < self.warmup:
            return float("-inf")
        return self.mean - self.deviations * self.sigma

    def _mass(self) -> float:
        steps = int(self.steps)
        return 1.0 - math.pow(self.momentum, steps) if steps else 1.0

    def keep_mask(self, similarity: Tensor) -> Tensor:
        """(B,) bool, True = kept. A batch is never dropped whole: if all fall below, all are kept."""
        kept = similarity >= self.threshold
        return kept if bool(kept.any()) else torch.ones_like(kept)

    @torch.no_grad()
    def update(self, similarity: Tensor) -> None:
        """Take one step's similarities, (B,), into the running statistics; dropped pairs count too."""
        similarity = similarity.double()
        self.ema_mean.lerp_(similarity.mean(), 1 - self.momentum)
        self.ema_square.lerp_(similarity.square().mean(), 1 - self.momentum)
        self.steps.add_(1)


def keep_at_least(kept: Tensor, similarity: Tensor, *, least: int) -> Tensor:
    """What a filter keeps, and of a process that would be left with fewer pairs than `least` its likeliest besides.

    Args:
        kept: (B,) bool; similarity: (B,); of the pairs of all processes, one after another.
        least: pairs for each process; one that has no more keeps all.

    Returns:
        (B,) bool, the same in every process.
    """
    first = similarity.masked_fill(kept, float("inf"))
    kept = kept.clone()
    for share in rank_slices(len(kept)):
        kept[share.start + first[share].argsort(descending=True, stable=True)[:least]] = True
    return kept
