"""This project's discrete VAE, trained on the images of the data set."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cots.collectives import all_gather_with_grad
from cots.distributed import world_size

DOWNSAMPLING = 8  # pixels along a side for one token
FAINT = -60.0  # nats below the most probable code; lower scores are clamped
SHARPNESS = 6.0  # initial standard deviation of a code's logit over positions; below about 4 Gumbel noise dominates


class Residual(nn.Module):
    """Two 3 x 3 convolutions, added to their input.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        out: Tensor = x + self.path(x)
        return out


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch normalization over the global batch, of which each rank has a share of its own length.

    `torch.nn.SyncBatchNorm` does so on GPUs alone.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        if world_size() == 1 or not self.training:
            return super().forward(x)
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        count = torch.full_like(mean, len(x) * x[0, 0].numel())
        counts, means, variances = all_gather_with_grad(torch.stack([count, mean, variance])[None]).unbind(1)
        total = counts.sum(dim=0)
        mean = (counts * means).sum(dim=0) / total
        variance = (counts * (variances + (means - mean).square())).sum(dim=0) / total
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(variance.detach() * total / (total - 1), self.momentum)
        self.num_batches_tracked += 1
        return (x - mean[:, None, None]) * (variance + self.eps).rsqrt()[:, None, None]


class Reconstruction(NamedTuple):
    """The output of a training pass."""

    log_probs: Tensor  # (B, V, h, w) of the codes
    pixels: Tensor  # (B, 3, H, W), roughly in [0, 1]


class Dvae(nn.Module):
    """Encoder to code logits, decoder from one-hot codes; one code per 8 x 8 pixels.

    It works at a quarter and an eighth of the resolution, so that an image costs about a hundredth of DALL-E's encoder.
    The logits are batch-normalized to a learned standard deviation, so that no code can be likely everywhere, which is
    how codebooks trained on few images collapse (docs/decisions/0004-dvae.md).

    Args:
        num_codes: codebook size (V).
        hidden: channels at a quarter of the resolution; twice as many at an eighth.
        blocks: residual blocks at each resolution.

    Source: after DALL-E, arXiv:2102.12092, appendix A.
    """

    def __init__(self, *, num_codes: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.settings = {"num_codes": num_codes, "hidden": hidden, "blocks": blocks}
        wide = 2 * hidden
        self.encoder = nn.Sequential(
            nn.Conv2d(3, hidden, 4, stride=4),
            *(Residual(hidden) for _ in range(blocks)),
            nn.ReLU(),
            nn.Conv2d(hidden, wide, 2, stride=2),
            *(Residual(wide) for _ in range(blocks)),
            nn.ReLU(),
            nn.Conv2d(wide, num_codes, 1, bias=False),
        )
        self.spread = GlobalBatchNorm(num_codes, affine=False)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        self.decoder = nn.Sequential(
            nn.Conv2d(num_codes, wide, 1),
            *(Residual(wide) for _ in range(blocks)),
            nn.ReLU(),
            nn.ConvTranspose2d(wide, hidden, 2, stride=2),
            *(Residual(hidden) for _ in range(blocks)),
            nn.ReLU(),
            nn.Conv2d(hidden, 3 * 16, 1),
            nn.PixelShuffle(4),
        )

    def logits(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, V, H / 8, W / 8)."""
        spread: Tensor = self.spread(_at_least_float32(self.encoder(pixels - 0.5)))
        return self.sharpness * spread

    def encode(self, pixels: Tensor) -> Tensor:
        """Codes of images: (B, 3, H, W) in [0, 1], H and W multiples of 8, to (B, H / 8, W / 8) integers."""
        return self.logits(pixels).argmax(dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """The mean image of codes: (B, h, w) to (B, 3, 8 h, 8 w) in [0, 1]."""
        one_hot = F.one_hot(codes, self.num_codes).movedim(-1, 1).float()
        pixels: Tensor = self.decoder(one_hot) + 0.5
        return pixels.clamp(0, 1)

    def forward(self, pixels: Tensor, temperature: float, noise_seeds: Sequence[int]) -> Reconstruction:
        """Encode, sample relaxed codes by Gumbel-softmax, decode.

        Args:
            pixels: (B, 3, H, W) in [0, 1].
            temperature: of the relaxation, > 0; near 0 the samples are one-hot.
            noise_seeds: B seeds, of the noise of each image.
        """
        log_probs = self.logits(pixels).log_softmax(dim=1)
        sampled = gumbel_softmax(log_probs, temperature, noise_seeds)
        return Reconstruction(log_probs, _at_least_float32(self.decoder(sampled)) + 0.5)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def gumbel_softmax(log_probs: Tensor, temperature: float, noise_seeds: Sequence[int]) -> Tensor:
    """Relaxed samples of codes: softmax((log p + g) / temperature), g = -log(-log u), u uniform in (0, 1).

    Unlike torch's own, it keeps the channels-last layout, and clamps scores at FAINT: at low temperatures nearly all
    results would be denormal numbers, on which CPUs are slow.

    Args:
        log_probs: (B, V, h, w).
        temperature: > 0; near 0 the samples are one-hot.
        noise_seeds: B seeds, so that an image's noise does not depend on who has the rest of its batch.

    Returns:
        (B, V, h, w), each position's codes summing to 1.

    Source: Jang et al., arXiv:1611.01144.
    """
    uniform = torch.empty_like(log_probs)
    for noise, seed in zip(uniform, noise_seeds, strict=True):
        noise.uniform_(generator=torch.Generator(noise.device).manual_seed(seed))
    uniform.clamp_(min=torch.finfo(log_probs.dtype).tiny)
    scores = (log_probs - uniform.log_().neg_().log_()) / temperature
    highest = scores.detach().amax(dim=1, keepdim=True)
    return (scores - highest).clamp(min=FAINT).softmax(dim=1)


def kl_to_uniform(log_probs: Tensor) -> Tensor:
    """How far code distributions (B, V, h, w) are from uniform: KL in nats, mean over positions, in [0, ln V]."""
    return (log_probs.exp() * log_probs).sum(dim=1).mean() + math.log(log_probs.shape[1])


def perplexity(counts: Tensor) -> float:
    """The effective number of codes in use, exp of the entropy of the counts (V,), in [1, V]; 0 for no counts."""
    share = counts.double() / counts.sum().clamp(min=1)
    return (
        float((-(share * share.clamp(min=torch.finfo(torch.double).tiny).log()).sum()).exp()) if counts.sum() else 0.0
    )
