"""The queues of negatives: past keys of both modalities, one row a pair."""

import torch
from torch import Tensor, nn


class PairQueue(nn.Module):
    """Keys of past pairs, oldest overwritten first.

    Both modalities live in one object, because the task level compares distributions over the same candidates: row j
    of `images` and of `texts` is the same pair, always. Rows are negatives only once filled; nothing random stands in.

    Args:
        size: rows kept (K); 0 keeps none.
        dim: of the shared space (D).
        warmup: pushes that are not taken in. While streams learn from nothing, keys of a step ago are told from
            fresh ones by their age alone, and that is then all that is learnt (docs/decisions/0003-queue-warm-up.md).

    Source: MoCo, arXiv:1911.05722; two queues as in COTS, arXiv:2204.07441.
    """

    features_image: Tensor
    features_text: Tensor
    owners: Tensor
    cursor: Tensor
    pushes: Tensor
    count: Tensor

    def __init__(self, *, size: int, dim: int, warmup: int) -> None:
        super().__init__()
        self.warmup = warmup
        self.register_buffer("pushes", torch.zeros((), dtype=torch.long))
        self.register_buffer("features_image", torch.zeros(size, dim))
        self.register_buffer("features_text", torch.zeros(size, dim))
        self.register_buffer("owners", torch.full((size,), -1))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.long))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @property
    def size(self) -> int:
        """Rows that fit (K)."""
        return len(self.owners)

    @property
    def images(self) -> Tensor:
        """(filled, D) image keys."""
        return self.features_image[: int(self.count)]

    @property
    def texts(self) -> Tensor:
        """(filled, D) text keys; row j belongs to the pair of row j of `images`."""
        return self.features_text[: int(self.count)]

    @property
    def samples(self) -> Tensor:
        """(filled,) number of the picture that each row comes from."""
        return self.owners[: int(self.count)]

    @torch.no_grad()
    def push(self, images: Tensor, texts: Tensor, samples: Tensor) -> None:
        """Take in keys of pairs, (B, D) and (B, D), with their samples' numbers, (B,). B may be any size."""
        self.pushes.add_(1)
        size = self.size
        if int(self.pushes) <= self.warmup or not size:
            return
        images, texts, samples = images[-size:], texts[-size:], samples[-size:]
        rows = (self.cursor + torch.arange(len(samples), device=samples.device)) % size
        self.features_image[rows] = images.to(self.features_image.dtype)
        self.features_text[rows] = texts.to(self.features_text.dtype)
        self.owners[rows] = samples
        self.cursor.add_(len(samples)).remainder_(size)
        self.count.add_(len(samples)).clamp_(max=size)
