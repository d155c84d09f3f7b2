"""CLIP: every other pair of the batch is a negative, and both streams have the gradient."""

from cots.distributed import all_gather_with_grad
from cots.losses.contrastive import contrastive_logits, info_nce, global_targets
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.temperature import Temperature
from cots.objectives.protocol import ALL_ROWS, Batch, LossOutput, Objective


class ClipObjective(Objective[None]):
    """In-batch InfoNCE in both directions; ALIGN is the same on noisier data.

        L = (info_nce(f_v F_l^T / tau) + info_nce(f_l F_v^T / tau)) / 2

    Two captions of one picture are no negatives of each other, as in COTS, so that the comparison is fair.

    Args:
        image: the image stream; text: the text stream; temperature: tau, learned as a rule.

    Source: CLIP, arXiv:2103.00020, figure 3; ALIGN, arXiv:2102.05918.
    """

    def __init__(self, *, image: ImageEncoder, text: TextEncoder, temperature: Temperature) -> None:
        super().__init__()
        self.image, self.text, self.temperature = image, text, temperature

    def compute_keys(self, batch: Batch, micro_batches: list[slice]) -> None:
        """None: there is no momentum stream."""

    def forward(self, batch: Batch, keys: None, rows: slice = ALL_ROWS) -> LossOutput:
        """The share of the batch's loss that this process's rows have."""
        image, text = self.image(batch.frames), self.text(batch.input_ids, batch.attention_mask)
        images, texts = all_gather_with_grad(image), all_gather_with_grad(text)
        positives, excluded = global_targets(batch.image_index, all_gather_with_grad(batch.image_index))
        none, temperature = image[:0], self.temperature()
        i2t = contrastive_logits(image, texts, none, ignore_mask=excluded, temperature=temperature)
        t2i = contrastive_logits(text, images, none, ignore_mask=excluded, temperature=temperature)
        share = len(image) / len(images)
        loss = share * (info_nce(i2t, positives) + info_nce(t2i, positives)) / 2
        return LossOutput(loss, {"contrastive": loss.detach()})

    def update_state(self, keys: None) -> None:
        """Nothing moves between steps."""

    def metrics(self, keys: None) -> dict[str, float]:
        """The temperature, for the curves."""
        return {"temperature": float(self.temperature().detach())}
