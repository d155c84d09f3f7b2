"""Image-text matching (ITM): the training objective of the single-stream baseline."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._single_stream.cross_encoder import SingleStreamEncoder
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.momentum import MomentumEncoder
from cots.objectives.protocol import ALL_ROWS, Batch, LossOutput, Objective


def sample_hard_negatives(similarity: Tensor, image_index: Tensor, *, temperature: float) -> Tensor:
    """Draw a negative for each query, with a probability that grows with the similarity by two streams.

        P(j | i) = softmax_j(s_ij / temperature) over the candidates of other images

    It is drawn because captions often fit an image that they were not written for; the most similar negative would
    be such a caption in every step.

    Args:
        similarity: (B, B) cosines; row i is a query, column i its positive.
        image_index: (B,) number of each pair's image; its other captions are no negatives.
        temperature: > 0; close to 0 the most similar negative is drawn.

    Returns:
        (B,) a column for each row.

    Raises:
        ValueError: all pairs are of one image.

    Source: ALBEF, arXiv:2107.07651, section 3.2.
    """
    if (image_index == image_index[0]).all():
        raise ValueError(f"a batch of {len(image_index)} pairs of one image has no wrong pairs: take a larger batch")
    same = image_index[:, None] == image_index
    probabilities = (similarity.float() / temperature).masked_fill(same, float("-inf")).softmax(dim=1)
    return torch.multinomial(probabilities, 1)[:, 0]


class TemperatureSchedule(NamedTuple):
    """Temperature of drawing negatives: falls geometrically from `start` to `end` in `steps` steps, then stays."""

    start: float
    end: float
    steps: int

    def at(self, step: int) -> float:
        """The temperature of a step."""
        return float(self.start * (self.end / self.start) ** min(step / self.steps, 1.0))


class ITMObjective(Objective[None]):
    """Binary cross-entropy over each pair, its image with a hard negative text and its text with a hard negative image.

        L = 1/(3B) sum over the 3B pairs of -log sigmoid(+-logit)

    Negatives become harder during the run: from the hardest alone a network learns nothing at first, and its loss stays
    at that of guessing one right pair in three, 0.637 nats.

    Args:
        joint: the network that is trained.
        image: the image encoder; text: the text encoder. Frozen copies of them find the negatives.
        temperature: of drawing the negatives.

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
        """Nothing: the negatives are drawn in the forward pass."""

    def forward(self, batch: Batch, keys: None, rows: slice = ALL_ROWS) -> LossOutput:
        """The loss of the whole batch."""
        texts, images = self.negatives(batch)
        positives = torch.arange(len(texts), device=texts.device)
        left = torch.cat([positives, positives, images])  # (3B,) rows of images
        right = torch.cat([positives, texts, positives])  # (3B,) rows of texts
        patches = self.joint.patches(batch.frames)
        logits = self.joint.score_pairs(patches[left], batch.input_ids[right], batch.attention_mask[right])
        loss = F.binary_cross_entropy_with_logits(logits.float(), (left == right).float())
        return LossOutput(loss, {"matching": loss.detach()})

    def negatives(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """For each pair the rows of a negative text for its image and of a negative image for its text, (B,) each."""
        similarity = self.image(batch.frames) @ self.text(batch.input_ids, batch.attention_mask).T
        temperature = self.temperature.at(int(self.step))
        texts = sample_hard_negatives(similarity, batch.image_index, temperature=temperature)
        return texts, sample_hard_negatives(similarity.T, batch.image_index, temperature=temperature)

    def update_state(self, keys: None) -> None:
        """Count the step, so that the negatives of the next one are harder."""
        self.step.add_(1)

    def metrics(self, keys: None) -> dict[str, float]:
        """The temperature of drawing negatives, for the curves."""
        return {"temperature": self.temperature.at(int(self.step))}
