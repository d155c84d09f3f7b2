"""The paper on one screen: the losses of a batch, and the one method that moves queues and momentum."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cots.losses.alignment import symmetric_kl
from cots.losses.contrastive import contrastive_logits, info_nce
from cots.losses.filter import MomentumFilter
from cots.losses.masked import masked_cross_entropy
from cots.models.heads import TokenHead
from cots.models.momentum import MomentumCopy
from cots.models.queue import PairQueue
from cots.models.stream import ImageStream, TextStream


class Batch(NamedTuple):
    """B pairs, as the objective sees them. The last four fields matter to the token level only."""

    samples: Tensor  # (B,) number of the picture in the manifest
    captions: Tensor  # (B,) number of the caption among all captions
    frames: Tensor  # (B, T, 3, H, W) normalised
    ids: Tensor  # (B, L) words
    attended: Tensor  # (B, L) bool, False = padding
    masked_patches: Tensor  # (B, N) bool, True = hidden
    visual_tokens: Tensor  # (B, N) dVAE codes of the same crop
    corrupted_ids: Tensor  # (B, L) words with some hidden
    masked_words: Tensor  # (B, L) bool, True = to be predicted

    def take(self, rows: Tensor) -> "Batch":
        """The pairs for which `rows` is True."""
        return Batch(*(field[rows] for field in self))


class Levels(NamedTuple):
    """One value a level of interaction: losses in nats, or their weights."""

    instance: Tensor | float
    token: Tensor | float
    task: Tensor | float


class Keys(NamedTuple):
    """What the momentum streams say of a batch, dropped pairs included."""

    images: Tensor  # (B, D)
    texts: Tensor  # (B, D)
    samples: Tensor  # (B,)
    similarity: Tensor  # (B,) cosine of each pair
    kept: Tensor  # (B,) bool, False = dropped by the filter


class Outcome(NamedTuple):
    """The result of a forward pass."""

    total: Tensor
    losses: Levels
    keys: Keys


class CotsObjective(nn.Module):
    """The COTS training objective: L = w_instance (L_i2t + L_t2i) + w_token (L_mvm + L_mlm) + w_task L_task.

    `forward` is pure: it reads queues, momentum streams and filter, and changes none of them; `advance` does that.
    A level of weight 0 is not computed.

    Args:
        image: the image stream; text: the text stream.
        patch_head: predicts visual tokens; word_head: predicts words.
        queue: past keys; noise_filter: the adaptive momentum filter.
        weights: of the three levels, >= 0.
        temperature: softmax temperature of the contrastive logits, > 0.
        batch_negatives: the batch's other keys are negatives too; False leaves the queue alone, as the paper writes it.
        momentum: of the momentum streams, per step, in [0, 1].

    Source: COTS, arXiv:2204.07441, section 3.
    """

    def __init__(
        self,
        *,
        image: ImageStream,
        text: TextStream,
        patch_head: TokenHead,
        word_head: TokenHead,
        queue: PairQueue,
        noise_filter: MomentumFilter,
        weights: Levels,
        temperature: float,
        batch_negatives: bool,
        momentum: float,
    ) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.image_slow, self.text_slow = MomentumCopy(image), MomentumCopy(text)
        self.patch_head, self.word_head = patch_head, word_head
        self.queue, self.noise_filter = queue, noise_filter
        self.weights, self.temperature, self.momentum = weights, temperature, momentum
        self.batch_negatives = batch_negatives

    def forward(self, batch: Batch) -> Outcome:
        """The losses of a batch and the keys to `advance` with."""
        keys = self.keys(batch)
        batch = batch.take(keys.kept)
        image, text = self.image(batch.frames), self.text(batch.ids, batch.attended)
        zero = image.feature.new_zeros(())
        instance = task = token = zero
        if self.weights.instance or self.weights.task:
            i2t, t2i = self.logits(batch.samples, image.feature, text.feature, keys)
            instance = info_nce(i2t) + info_nce(t2i) if self.weights.instance else zero
            task = symmetric_kl(i2t, t2i) if self.weights.task else zero
        if self.weights.token:
            token = self.token_loss(batch, image.feature, text.feature)
        levels = (instance, token, task)
        total = zero + sum(weight * loss for weight, loss in zip(self.weights, levels, strict=True) if weight)
        return Outcome(total, Levels(*(loss.detach() for loss in levels)), keys)

    @torch.no_grad()
    def keys(self, batch: Batch) -> Keys:
        """Momentum features, the similarity of each pair, and which pairs the filter keeps."""
        images = self.image_slow(batch.frames).feature
        texts = self.text_slow(batch.ids, batch.attended).feature
        similarity = (images * texts).sum(dim=1)
        return Keys(images, texts, batch.samples, similarity, self.noise_filter.keep(similarity))

    def logits(self, samples: Tensor, image: Tensor, text: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
        """Image-to-text and text-to-image logits over the same candidates, (B, B + K) each."""
        excluded = self.excluded(samples)
        image_keys, text_keys = keys.images[keys.kept], keys.texts[keys.kept]
        i2t = contrastive_logits(image, text_keys, self.queue.texts, excluded=excluded, temperature=self.temperature)
        t2i = contrastive_logits(text, image_keys, self.queue.images, excluded=excluded, temperature=self.temperature)
        return i2t, t2i

    def excluded(self, samples: Tensor) -> Tensor:
        """(B, B + K) bool: which candidates are no negatives of a query, its own picture's others above all."""
        own = torch.eye(len(samples), dtype=torch.bool, device=samples.device)
        same = samples[:, None] == samples if self.batch_negatives else torch.ones_like(own)
        return torch.cat([same & ~own, self.queue.same_sample(samples)], dim=1)

    def token_loss(self, batch: Batch, image: Tensor, text: Tensor) -> Tensor:
        """Masked vision and language modelling, each helped by the other's global feature, from the clean pass."""
        patches = self.image(batch.frames, batch.masked_patches).tokens
        words = self.text(batch.corrupted_ids, batch.attended).tokens
        patch_logits = self.patch_head(patches, batch.masked_patches, text)
        word_logits = self.word_head(words, batch.masked_words, image)
        return masked_cross_entropy(patch_logits, batch.visual_tokens[batch.masked_patches]) + masked_cross_entropy(
            word_logits, batch.ids[batch.masked_words]
        )

    @torch.no_grad()
    def advance(self, keys: Keys) -> None:
        """Move the momentum streams, the queues and the filter one step; called once after each optimiser step."""
        self.image_slow.follow(self.image, self.momentum)
        self.text_slow.follow(self.text, self.momentum)
        self.queue.push(keys.images[keys.kept], keys.texts[keys.kept], keys.samples[keys.kept])
        self.noise_filter.observe(keys.similarity)
