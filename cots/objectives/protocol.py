"""The interface between the training loop and an objective."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from cots.collectives import all_gather_with_grad

ALL_ROWS = slice(None)


def saved_encoders(*, ema: bool) -> tuple[str, str]:
    """Names, within an objective, of the image and the text encoder that a run saves: online ones or their average."""
    return ("image_m.module", "text_m.module") if ema else ("image", "text")


class Batch(NamedTuple):
    """One rank's share of a batch of B image-text pairs, which show S images or videos; S < B if captions share one.

    From `bool_masked_pos` to `mlm_mask` the fields are inputs of the masked passes; those after them are None if no
    loss needs them.
    """

    image_index: Tensor  # (B,) index of the image or video in the manifest
    caption_index: Tensor  # (B,) index of the caption among all captions
    frame_row: Tensor  # (B,) row of `frames`, `bool_masked_pos` and `visual_tokens` for each pair; ascending
    frames: Tensor  # (S, T, 3, H, W) normalized
    input_ids: Tensor  # (B, L) token ids
    attention_mask: Tensor  # (B, L) bool, False = padding
    bool_masked_pos: Tensor  # (S, N) bool, True = masked, in all frames
    visual_tokens: Tensor  # (S, N) dVAE codes of the same crop
    mlm_input_ids: Tensor  # (B, L) token ids, some masked
    mlm_mask: Tensor  # (B, L) bool, True = to be predicted
    other_frames: Tensor | None = None  # (S, T, 3, H, W) a second crop of each; None if no loss compares two
    translation_input_ids: Tensor | None = None  # (B, L') a caption in another language; the own one without any
    translation_attention_mask: Tensor | None = None  # (B, L') bool, False = padding
    has_translation: Tensor | None = None  # (B,) bool, False = there is no caption in another language
    class_index: Tensor | None = None  # (B,) number of the sample's class, -1 = none

    def select(self, rows: Tensor | slice) -> "Batch":
        """The pairs of these ascending indices, with the frames that they show."""
        shown, frame_row = torch.unique(self.frame_row[rows], return_inverse=True)
        of_frames = {"frames", "bool_masked_pos", "visual_tokens", "other_frames"}
        tensors = {name: field for name, field in self._asdict().items() if field is not None}
        fields = {name: field[shown if name in of_frames else rows] for name, field in tensors.items()}
        return Batch(**fields | {"frame_row": frame_row})

    def per_pair(self, values: Tensor) -> Tensor:
        """For each pair, (B, ...), the row of `values`, (S, ...), that belongs to its image or video."""
        return values if len(values) == len(self.frame_row) else values[self.frame_row]


class KeyFeatures(NamedTuple):
    """Momentum-encoder features of the global batch, ranks concatenated, dropped pairs included.

    If nothing needs the momentum encoders they are not run: there are no features, and `with_similarity` takes the
    similarities from the online encoders.
    """

    images: Tensor  # (B, D) or (0, D)
    texts: Tensor  # (B, D) or (0, D)
    image_index: Tensor  # (B,)
    num_masked_tokens: Tensor  # (B,) masked text tokens
    similarity: Tensor  # (B,) cosine of each pair, or (0,) before `with_similarity`
    keep_mask: Tensor  # (B,) bool, False = dropped by the filter
    num_translated_tokens: Tensor | None = None  # (B,) masked text tokens of pairs with a caption in another language
    class_index: Tensor | None = None  # (B,) number of each pair's class, -1 = none; None if no loss needs it

    def with_similarity(self, similarity: list[Tensor]) -> "KeyFeatures":
        """Add this rank's similarities under the online encoders, unless the momentum encoders gave some."""
        return self if len(self.similarity) else self._replace(similarity=all_gather_with_grad(torch.cat(similarity)))


class LossOutput(NamedTuple):
    """The result of a forward pass over some rows of a batch."""

    loss: Tensor  # for backward: these rows' share of the global batch's weighted loss
    losses: dict[str, Tensor]  # the terms by name, unweighted, without gradient; nats
    similarity: Tensor | None = None  # (R,) cosine of each pair under the online encoders, if the objective has it


K = TypeVar("K", KeyFeatures, None)  # result of `compute_keys`


class Objective(nn.Module, ABC, Generic[K]):
    """What the training loop needs of an objective.

    One step is `compute_keys` once, `forward` for each micro-batch, the optimizer's step, and `update_state` once; only
    the last one changes state. A `typing.Protocol` cannot require that an objective is an `nn.Module`.
    """

    @property
    def levels(self) -> list[str]:
        """Names of the losses that the run trains, if there are several that can be computed one by one."""
        return []

    @contextmanager
    def only(self, level: str) -> Iterator[None]:
        """Within this context the loss is that of one of the levels, with its weight."""
        raise NotImplementedError(level)

    @abstractmethod
    def compute_keys(self, batch: Batch, micro_batches: list[slice]) -> K:
        """Compute, without gradient, what the forward passes need to know of the whole batch; None if nothing.

        Args:
            batch: this rank's share.
            micro_batches: slices of its rows to be computed one after the other.
        """

    @abstractmethod
    def forward(self, batch: Batch, keys: K, rows: slice = ALL_ROWS) -> LossOutput:
        """The losses of some rows, as shares: their sum over rows and ranks is the loss of the global batch.

        Args:
            batch: this rank's share.
            keys: of `compute_keys`.
            rows: slice of the pairs that `keys` keeps, or of all pairs if `keys` is None.
        """

    @abstractmethod
    def update_state(self, keys: K) -> None:
        """Update momentum encoders, queues, running statistics and bounds after the optimizer's step."""

    @abstractmethod
    def metrics(self, keys: K) -> dict[str, float]:
        """Values of the step for the curves, by column, besides the losses."""
