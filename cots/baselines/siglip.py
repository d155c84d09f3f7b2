"""SigLIP: each pair of the batch is judged alone, as right or wrong, by a sigmoid."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cots.losses.contrastive import same_picture
from cots.models.stream import ImageStream, TextStream
from cots.models.temperature import Temperature
from cots.objective import WHOLE, Batch, Outcome


def sigmoid_loss(logits: Tensor, excluded: Tensor) -> Tensor:
    """Binary cross-entropy of every picture with every text; partners stand on the diagonal.

        -1/B sum over i, j of log sigmoid(z_ij l_ij),   z_ij = 1 for i = j, else -1

    Args:
        logits: (B, B).
        excluded: (B, B) bool, True = this pair is neither right nor wrong and adds nothing.

    Returns:
        Scalar, nats a picture, >= 0; B ln 2 for logits of zero where nothing is excluded.

    Source: SigLIP, arXiv:2303.15343, equation 2.
    """
    sign = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(sign * logits).masked_fill(excluded, 0).sum() / len(logits)


class SiglipObjective(nn.Module):
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
        """The loss of the whole batch."""
        image, text = self.image(batch.frames).feature, self.text(batch.ids, batch.attended).feature
        excluded = same_picture(batch.samples, batch.samples).fill_diagonal_(False)
        loss = sigmoid_loss(image @ text.T / self.temperature() + self.bias, excluded)
        return Outcome(loss, {"sigmoid": loss.detach()})

    def advance(self, keys: None) -> None:
        """Nothing moves between steps."""

    def figures(self, keys: None) -> dict[str, float]:
        """Temperature and bias, for the curves."""
        return {"temperature": float(self.temperature().detach()), "bias": float(self.bias.detach())}
