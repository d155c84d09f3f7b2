"""What the training loop hands to an objective, what it gets back, and what it may ask of one."""

from abc import ABC, abstractmethod
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from cots.distributed import all_gather_with_grad

ALL_ROWS = slice(None)


class Batch(NamedTuple):
    """One rank's share of a batch of B image-text pairs. The last four fields matter to the token level."""

    image_index: Tensor  # (B,) number of the picture in the manifest
    caption_index: Tensor  # (B,) number of the caption among all captions
    frames: Tensor  # (B, T, 3, H, W) normalised
    input_ids: Tensor  # (B, L) words
    attention_mask: Tensor  # (B, L) bool, False = padding
    bool_masked_pos: Tensor  # (B, N) bool, True = hidden, in all of a clip's frames
    visual_tokens: Tensor  # (B, N) dVAE codes of the same crop
    mlm_input_ids: Tensor  # (B, L) words with some hidden
    mlm_mask: Tensor  # (B, L) bool, True = to be predicted

    def select(self, rows: Tensor) -> "Batch":
        """Some of the pairs, by their numbers in the batch."""
        return Batch(*(field[rows] for field in self))


class KeyFeatures(NamedTuple):
    """Momentum-encoder features of the global batch, ranks concatenated, dropped pairs included.

    With one process B is the same B as the batch's. Where nothing asks the momentum encoders they are not run: there
    are no features, and `seen` takes the similarities from the online encoders.
    """

    images: Tensor  # (B, D) or (0, D)
    texts: Tensor  # (B, D) or (0, D)
    image_index: Tensor  # (B,)
    num_masked_tokens: Tensor  # (B,) hidden words
    similarity: Tensor  # (B,) cosine of each pair, or (0,) until `seen`
    keep_mask: Tensor  # (B,) bool, False = dropped by the filter

    def with_similarity(self, similarity: list[Tensor]) -> "KeyFeatures":
        """With the similarities that this process's forward passes found, where the momentum encoders gave none."""
        return self if len(self.similarity) else self._replace(similarity=all_gather_with_grad(torch.cat(similarity)))


class LossOutput(NamedTuple):
    """The result of a forward pass over some rows of a batch."""

    loss: Tensor  # to be differentiated: the share of the batch's loss that these rows have
    losses: dict[str, Tensor]  # the same share by name, unweighted, without gradient; nats
    similarity: Tensor | None = None  # (R,) of the rows' pairs under the online encoders, or None where none is told


K = TypeVar("K", KeyFeatures, None)  # what an objective computes for a whole batch beforehand


class Objective(nn.Module, ABC, Generic[K]):
    """What the loop asks of an objective. It is abstract and holds no code: each objective answers for itself.

    One step of the loop is `keys` once, `forward` for each part of the batch, and, after the optimizer's step,
    `advance` once. Only `advance` changes state. A `typing.Protocol` could not say that an objective is a module too.
    """

    @abstractmethod
    def compute_keys(self, batch: Batch, micro_batches: list[slice]) -> K:
        """What is computed without gradient for the whole batch before its parts; None where that is nothing.

        Args:
            batch: this rank's share.
            parts: slices of its rows that are computed one after the other.
        """

    @abstractmethod
    def forward(self, batch: Batch, keys: K, rows: slice = ALL_ROWS) -> LossOutput:
        """The losses of some rows, as shares of the global batch's: over rows and ranks they add up to its losses.

        Args:
            batch: this rank's share.
            keys: what `keys` gave for it.
            rows: slice of the pairs that `keys` kept, or of all pairs where it gave None.
        """

    @abstractmethod
    def update_state(self, keys: K) -> None:
        """Move what moves between steps: momentum encoders, queues, running statistics."""

    @abstractmethod
    def metrics(self, keys: K) -> dict[str, float]:
        """Numbers of the step for the curves, besides the losses."""
