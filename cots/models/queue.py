"""The queues of negatives: momentum features of past pairs, one row per pair in both modalities."""

import torch
from torch import Tensor, nn


class PairQueue(nn.Module):
    """Keys of past pairs; the oldest are overwritten first.

    One object holds both modalities, because the task level compares distributions over the same candidates: row j of
    `images` and row j of `texts` always belong to the same pair. Rows that are not filled yet are not negatives; MoCo
    initializes them at random instead.

    Args:
        size: rows (K); 0 for no queue.
        dim: of the shared space (D).
        warmup_steps: first calls of `enqueue` that store nothing. Encoders trained from scratch change so fast that
            old keys differ from fresh ones by age alone, and the encoders would learn to detect just that
            (docs/decisions/0003-queue-warm-up.md).

    Source: MoCo, arXiv:1911.05722; two queues as in COTS, arXiv:2204.07441.
    """

    image_queue: Tensor
    text_queue: Tensor
    sample_ids: Tensor
    ptr: Tensor
    pushes: Tensor
    count: Tensor

    def __init__(self, *, size: int, dim: int, warmup_steps: int) -> None:
        super().__init__()
        self.warmup_steps = warmup_steps
        self.register_buffer("pushes", torch.zeros((), dtype=torch.long))
        self.register_buffer("image_queue", torch.zeros(size, dim))
        self.register_buffer("text_queue", torch.zeros(size, dim))
        self.register_buffer("sample_ids", torch.full((size,), -1))
        self.register_buffer("ptr", torch.zeros((), dtype=torch.long))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @property
    def size(self) -> int:
        """Capacity in rows (K)."""
        return len(self.sample_ids)

    @property
    def images(self) -> Tensor:
        """(filled, D) image keys."""
        return self.image_queue[: int(self.count)]

    @property
    def texts(self) -> Tensor:
        """(filled, D) text keys; row j belongs to the same pair as row j of `images`."""
        return self.text_queue[: int(self.count)]

    @property
    def image_index(self) -> Tensor:
        """(filled,) image number of each row."""
        return self.sample_ids[: int(self.count)]

    @torch.no_grad()
    def enqueue(self, images: Tensor, texts: Tensor, image_index: Tensor) -> None:
        """Add keys of B pairs, (B, D) each, with their image numbers, (B,); B may exceed the queue's size."""
        self.pushes.add_(1)
        size = self.size
        if int(self.pushes) <= self.warmup_steps or not size:
            return
        images, texts, image_index = images[-size:], texts[-size:], image_index[-size:]
        rows = (self.ptr + torch.arange(len(image_index), device=image_index.device)) % size
        self.image_queue[rows] = images.to(self.image_queue.dtype)
        self.text_queue[rows] = texts.to(self.text_queue.dtype)
        self.sample_ids[rows] = image_index
        self.ptr.add_(len(image_index)).remainder_(size)
        self.count.add_(len(image_index)).clamp_(max=size)
