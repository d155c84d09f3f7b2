"""SigLIP: a sigmoid classifies each image-text combination of the batch as matching or not."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cots.collectives import all_gather_with_grad
from cots.losses.contrastive import global_targets
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.temperature import Temperature
from cots.objectives.protocol import ALL_ROWS, Batch, LossOutput, Objective


def sigmoid_loss(logits: Tensor, targets: Tensor, ignore_mask: Tensor) -> Tensor:
    """Binary cross-entropy of each image with every text: some rows' share of the batch's loss.

        -1/B sum over i, j of log sigmoid(z_ij l_ij),   z_ij = 1 for j = targets_i, else -1

    Args:
        logits: (R, B), R of the batch's B images against all texts.
        targets: (R,) column of each image's own text.
        ignore_mask: (R, B) bool, True = this combination adds nothing to the loss.

    Returns:
        Scalar, nats per image, >= 0; R ln 2 for logits of zero if nothing is ignored.

    Source: SigLIP, arXiv:2303.15343, equation 2.
    """
    sign = torch.full_like(logits, -1).scatter(1, targets[:, None], 1)
    return -F.logsigmoid(sign * logits).masked_fill(ignore_mask, 0).sum() / logits.shape[1]


class SiglipObjective(Objective[None]):
    """The sigmoid loss over a batch: L = sigmoid_loss(f_v F_l^T / tau + b).

    Args:
        image: the image encoder; text: the text encoder; temperature: tau, learnable, initially about 0.1.
        bias: initial b; about -10 offsets the majority of non-matching combinations.

    Source: SigLIP, arXiv:2303.15343, algorithm 1.
    """

    def __init__(self, *, image: ImageEncoder, text: TextEncoder, temperature: Temperature, bias: float) -> None:
        super().__init__()
        self.image, self.text, self.temperature = image, text, temperature
        self.bias = nn.Parameter(torch.tensor(bias))

    def compute_keys(self, batch: Batch, micro_batches: list[slice]) -> None:
        """None: there is no momentum encoder."""

    def forward(self, batch: Batch, keys: None, rows: slice = ALL_ROWS) -> LossOutput:
        """This rank's share of the global batch's loss."""
        image = batch.per_pair(self.image(batch.frames))
        text = self.text(batch.input_ids, batch.attention_mask)
        texts = all_gather_with_grad(text)
        targets, ignore_mask = global_targets(batch.image_index, all_gather_with_grad(batch.image_index))
        loss = sigmoid_loss(image @ texts.T / self.temperature() + self.bias, targets, ignore_mask)
        return LossOutput(loss, {"sigmoid": loss.detach()})

    def update_state(self, keys: None) -> None:
        """Keep the temperature above its minimum."""
        self.temperature.clamp_()

    def metrics(self, keys: None) -> dict[str, float]:
        """Temperature and bias, for the curves."""
        return {"temperature": float(self.temperature().detach()), "bias": float(self.bias.detach())}
