"""SigLIP: each pair of the batch is judged alone, as right or wrong, by a sigmoid."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cots.distributed import all_gather_with_grad
from cots.losses.contrastive import global_targets
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.temperature import Temperature
from cots.objectives.protocol import ALL_ROWS, Batch, LossOutput, Objective


def sigmoid_loss(logits: Tensor, targets: Tensor, ignore_mask: Tensor) -> Tensor:
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
    sign = torch.full_like(logits, -1).scatter(1, targets[:, None], 1)
    return -F.logsigmoid(sign * logits).masked_fill(ignore_mask, 0).sum() / logits.shape[1]


class SiglipObjective(Objective[None]):
    """The sigmoid loss over a batch: L = sigmoid_loss(f_v F_l^T / tau + b).

    Args:
        image: the image stream; text: the text stream; temperature: tau, learned, about 0.1 at the start.
        bias: b at the start; about -10 makes up for the many wrong pairs.

    Source: SigLIP, arXiv:2303.15343, algorithm 1.
    """

    def __init__(self, *, image: ImageEncoder, text: TextEncoder, temperature: Temperature, bias: float) -> None:
        super().__init__()
        self.image, self.text, self.temperature = image, text, temperature
        self.bias = nn.Parameter(torch.tensor(bias))

    def compute_keys(self, batch: Batch, micro_batches: list[slice]) -> None:
        """None: there is no momentum stream."""

    def forward(self, batch: Batch, keys: None, rows: slice = ALL_ROWS) -> LossOutput:
        """The share of the batch's loss that this process's pictures have."""
        image, text = self.image(batch.frames), self.text(batch.input_ids, batch.attention_mask)
        texts = all_gather_with_grad(text)
        positives, excluded = global_targets(batch.image_index, all_gather_with_grad(batch.image_index))
        loss = sigmoid_loss(image @ texts.T / self.temperature() + self.bias, positives, excluded)
        return LossOutput(loss, {"sigmoid": loss.detach()})

    def update_state(self, keys: None) -> None:
        """Nothing moves between steps."""

    def metrics(self, keys: None) -> dict[str, float]:
        """Temperature and bias, for the curves."""
        return {"temperature": float(self.temperature().detach()), "bias": float(self.bias.detach())}
