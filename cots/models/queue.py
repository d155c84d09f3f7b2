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

    image_queue: Tensor
    text_queue: Tensor
    sample_ids: Tensor
    ptr: Tensor
    pushes: Tensor
    count: Tensor

    def __init__(self, *, size: int, dim: int, warmup: int) -> None:
        super().__init__()
        self.warmup = warmup
        self.register_buffer("pushes", torch.zeros((), dtype=torch.long))
        self.register_buffer("image_queue", torch.zeros(size, dim))
        self.register_buffer("text_queue", torch.zeros(size, dim))
        self.register_buffer("sample_ids", torch.full((size,), -1))
        self.register_buffer("ptr", torch.zeros((), dtype=torch.long))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @property
    def size(self) -> int:
        """Rows that fit (K)."""
        return len(self.sample_ids)

    @property
    def images(self) -> Tensor:
        """(filled, D) image keys."""
        return self.image_queue[: int(self.count)]

    @property
    def texts(self) -> Tensor:
        """(filled, D) text keys; row j belongs to the pair of row j of `images`."""
        return self.text_queue[: int(self.count)]

    @property
    def samples(self) -> Tensor:
        """(filled,) number of the picture that each row comes from."""
        return self.sample_ids[: int(self.count)]

    @torch.no_grad()
    def enqueue(self, images: Tensor, texts: Tensor, samples: Tensor) -> None:
        """Take in keys of pairs, (B, D) and (B, D), with their samples' numbers, (B,). B may be any size."""
        self.pushes.add_(1)
        size = self.size
        if int(self.pushes) <= self.warmup or not size:
            return
        images, texts, samples = images[-size:], texts[-size:], samples[-size:]
        rows = (self.ptr + torch.arange(len(samples), device=samples.device)) % size
        self.image_queue[rows] = images.to(self.image_queue.dtype)
        self.text_queue[rows] = texts.to(self.text_queue.dtype)
        self.sample_ids[rows] = samples
        self.ptr.add_(len(samples)).remainder_(size)
        self.count.add_(len(samples)).clamp_(max=size)
