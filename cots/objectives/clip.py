"""CLIP: every other pair of the batch is a negative, with gradient through both encoders."""

from cots.collectives import all_gather_with_grad
from cots.losses.contrastive import contrastive_logits, global_targets, info_nce
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.temperature import Temperature
from cots.objectives.protocol import ALL_ROWS, Batch, LossOutput, Objective


class ClipObjective(Objective[None]):
    """In-batch InfoNCE in both directions; ALIGN is the same on noisier data.

        L = (info_nce(f_v F_l^T / tau) + info_nce(f_l F_v^T / tau)) / 2

    Captions of the same image are no negatives of each other, as in COTS, for a fair comparison.

    Args:
        image: the image encoder; text: the text encoder; temperature: tau, usually learnable.

    Source: CLIP, arXiv:2103.00020, figure 3; ALIGN, arXiv:2102.05918.
    """

    def __init__(self, *, image: ImageEncoder, text: TextEncoder, temperature: Temperature) -> None:
        super().__init__()
        self.image, self.text, self.temperature = image, text, temperature

    def compute_keys(self, batch: Batch, micro_batches: list[slice]) -> None:
        """None: there is no momentum encoder."""

    def forward(self, batch: Batch, keys: None, rows: slice = ALL_ROWS) -> LossOutput:
        """This rank's share of the global batch's loss."""
        image = batch.per_pair(self.image(batch.frames))
        text = self.text(batch.input_ids, batch.attention_mask)
        images, texts = all_gather_with_grad(image), all_gather_with_grad(text)
        targets, ignore_mask = global_targets(batch.image_index, all_gather_with_grad(batch.image_index))
        no_queue, temperature = image[:0], self.temperature()
        i2t = contrastive_logits(image, texts, no_queue, ignore_mask=ignore_mask, temperature=temperature)
        t2i = contrastive_logits(text, images, no_queue, ignore_mask=ignore_mask, temperature=temperature)
        share = len(image) / len(images)
        loss = share * (info_nce(i2t, targets) + info_nce(t2i, targets)) / 2
        return LossOutput(loss, {"contrastive": loss.detach()})

    def update_state(self, keys: None) -> None:
        """Keep the temperature above its minimum."""
        self.temperature.clamp_()

    def metrics(self, keys: None) -> dict[str, float]:
        """The temperature, for the curves."""
        return {"temperature": float(self.temperature().detach())}
