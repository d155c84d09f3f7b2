"""SigLIP: each pair of the batch is judged alone, as right or wrong, by a sigmoid."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cots.dist import gathered
from cots.losses.contrastive import whole_batch
from cots.models.stream import ImageStream, TextStream
from cots.models.temperature import Temperature
from cots.objectives.protocol import WHOLE, Batch, Objective, Outcome


def sigmoid_loss(logits: Tensor, positives: Tensor, excluded: Tensor) -> Tensor:
    """Binary cross-entropy of pictures with every text, as a share of a whole batch's.

        -1/B sum over i, j of log sigmoid(z_ij l_ij),   z_ij = 1 for j = positives_i, else -1

    Args:
        logits: (R, B): R of B pictures.
        positives: (R,) column of each picture's own text.
        excluded: (R, B) bool, True = this pair is neither right nor wrong and adds nothing.

    Returns:
        Scalar, nats a picture, >= 0; R ln 2 for logits of zero where nothing is excluded.

    Source: SigLIP, arXiv:2303.15343, equation 2.
    """
    sign = torch.full_like(logits, -1).scatter(1, positives[:, None], 1)
    return -F.logsigmoid(sign * logits).masked_fill(excluded, 0).sum() / logits.shape[1]


class SiglipObjective(Objective[None]):
    """The sigmoid loss over a batch: L = sigmoid_loss(f_v F_l^T / tau + b).

    Args:
        image: the image stream; text: the text stream; temperature: tau, learned, about 0.1 at the start.
        bias: b at the start; about -10 makes up for the many wrong pairs.

    Source: SigLIP, arXiv:2303.15343, algorithm 1.
    """

    def __init__(self, *, image: ImageStream, text: TextStream, temperature: Temperature, bias: float) -> None:
        super().__init__()
        self.image, self.text, self.temperature = image, text, temperature
        self.bias = nn.Parameter(torch.tensor(bias))

    def keys(self, batch: Batch, parts: list[slice]) -> None:
        """None: there is no momentum stream."""

    def forward(self, batch: Batch, keys: None, rows: slice = WHOLE) -> Outcome:
        """The share of the batch's loss that this process's pictures have."""
        image, text = self.image(batch.frames), self.text(batch.ids, batch.attended)
        texts = gathered(text)
        positives, excluded = whole_batch(batch.samples, gathered(batch.samples))
        loss = sigmoid_loss(image @ texts.T / self.temperature() + self.bias, positives, excluded)
        return Outcome(loss, {"sigmoid": loss.detach()})

    def advance(self, keys: None) -> None:
        """Nothing moves between steps."""

    def figures(self, keys: None) -> dict[str, float]:
        """Temperature and bias, for the curves."""
        return {"temperature": float(self.temperature().detach()), "bias": float(self.bias.detach())}
