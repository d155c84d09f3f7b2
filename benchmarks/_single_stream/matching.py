"""Matching: is this text of this picture? The training objective of the single-stream baseline."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._single_stream.cross_encoder import SingleStreamEncoder
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.momentum import MomentumEncoder
from cots.objectives.protocol import ALL_ROWS, Batch, LossOutput, Objective


def sample_hard_negatives(similarity: Tensor, samples: Tensor, *, temperature: float) -> Tensor:
    """One wrong candidate a query, the likelier the more similar two streams find it.

        P(j | i) = softmax_j(s_ij / temperature) over the candidates of other pictures

    Drawn, not the most similar one: captions often fit a picture that they were not written for, and the argmax would
    teach just these as wrong, step after step.

    Args:
        similarity: (B, B) cosines; row i is a query, its partner is column i.
        samples: (B,) number of each pair's picture: its other captions are no negatives.
        temperature: > 0; towards 0 it is the argmax.

    Returns:
        (B,) a column for each row.

    Raises:
        ValueError: the pairs are all of one picture.

    Source: ALBEF, arXiv:2107.07651, section 3.2.
    """
    if (samples == samples[0]).all():
        raise ValueError(f"a batch of {len(samples)} pairs of one picture has no wrong pairs: take a larger batch")
    same = samples[:, None] == samples
    chances = (similarity.float() / temperature).masked_fill(same, float("-inf")).softmax(dim=1)
    return torch.multinomial(chances, 1)[:, 0]


class TemperatureSchedule(NamedTuple):
    """Temperature of the mining: geometrically from `start` to `end` in so many steps, then `end`."""

    start: float
    end: float
    steps: int

    def at(self, step: int) -> float:
        """The temperature of a step."""
        return float(self.start * (self.end / self.start) ** min(step / self.steps, 1.0))


class ITMObjective(Objective[None]):
    """Binary cross-entropy over each pair, its picture with a hard wrong text, and its text with a hard wrong picture.

        L = 1/(3B) sum over the 3B pairs of -log sigmoid(+-logit)

    Negatives harden over the run: from the hardest alone a network learns nothing at first, and stays at the cost of
    guessing one right pair in three, 0.637 nats.

    Args:
        joint: the network that learns.
        image: the image stream; text: the text stream. They are copied, and mine the negatives frozen.
        temperature: of the mining.

    Source: image-text matching, ALBEF, arXiv:2107.07651, section 3.2.
    """

    step: Tensor

    def __init__(
        self, joint: SingleStreamEncoder, *, image: ImageEncoder, text: TextEncoder, temperature: TemperatureSchedule
    ) -> None:
        super().__init__()
        self.joint, self.temperature = joint, temperature
        self.image, self.text = MomentumEncoder(image), MomentumEncoder(text)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def compute_keys(self, batch: Batch, parts: list[slice]) -> None:
        """None: the negatives are drawn in the forward pass."""

    def forward(self, batch: Batch, keys: None, rows: slice = ALL_ROWS) -> LossOutput:
        """The loss of the whole batch."""
        texts, pictures = self.negatives(batch)
        own = torch.arange(len(texts), device=texts.device)
        left, right = torch.cat([own, own, pictures]), torch.cat([own, texts, own])  # (3B,) rows of a picture, a text
        patches = self.joint.patches(batch.frames)
        logits = self.joint.judge(patches[left], batch.input_ids[right], batch.attention_mask[right])
        loss = F.binary_cross_entropy_with_logits(logits.float(), (left == right).float())
        return LossOutput(loss, {"matching": loss.detach()})

    def negatives(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """For each pair the row of a wrong text for its picture, (B,), and of a wrong picture for its text, (B,)."""
        similarity = self.image(batch.frames) @ self.text(batch.input_ids, batch.attention_mask).T
        temperature = self.temperature.at(int(self.step))
        texts = sample_hard_negatives(similarity, batch.image_index, temperature=temperature)
        return texts, sample_hard_negatives(similarity.T, batch.image_index, temperature=temperature)

    def update_state(self, keys: None) -> None:
        """Count the step: the negatives of the next are harder."""
        self.step.add_(1)

    def metrics(self, keys: None) -> dict[str, float]:
        """The mining's temperature, for the curves."""
        return {"temperature": self.temperature.at(int(self.step))}
