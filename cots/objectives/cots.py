"""The COTS objective: the losses of a batch, and one method that updates queues, momentum encoders and filter."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from cots.collectives import all_gather_with_grad
from cots.curves import FILTER_THRESHOLD, KEEP_RATE, SIMILARITY_MEAN, SIMILARITY_STD
from cots.distributed import local_slice
from cots.losses.alignment import symmetric_kl
from cots.losses.contrastive import contrastive_logits, info_nce, multi_positive_info_nce
from cots.losses.filter import AdaptiveMomentumFilter, keep_at_least
from cots.losses.masked import IGNORED, masked_cross_entropy
from cots.models.class_head import ClassHead
from cots.models.encoder import ImageEncoder, MaskedOutput, TextEncoder
from cots.models.heads import MaskedTokenHead
from cots.models.momentum import MomentumEncoder
from cots.models.queue import PairQueue
from cots.models.temperature import Temperature
from cots.models.token_index import TokenIndex
from cots.objectives.class_losses import class_contrast_loss, classification_loss
from cots.objectives.encoded_rows import (
    CandidateFeatures,
    CandidateSet,
    EncodedRows,
    Logits,
    find_class_targets,
    find_masked_targets,
    select_candidates,
    symmetric_info_nce,
)
from cots.objectives.protocol import ALL_ROWS, Batch, KeyFeatures, LossOutput, Objective

InBatchNegatives = Literal["none", "momentum", "online"]


class LossWeights(NamedTuple):
    """Weights, >= 0: of the paper's three levels, then of this project's terms."""

    instance: float
    token: float
    task: float
    masked_views: float
    within_modality: float = 0.0
    translation: float = 0.0
    class_contrast: float = 0.0
    classification: float = 0.0


class CotsObjective(Objective[KeyFeatures]):
    """The COTS training objective: L = w_instance (L_i2t + L_t2i) + w_token (L_mvm + L_mlm) + w_task L_task.

    This project adds five terms: w_masked_views (L_i2t + L_t2i) between the masked images and the masked texts, which
    the token level encodes anyway (docs/decisions/0007); w_within_modality (L_i2i + L_t2t) between two crops of an
    image and between captions of an image (docs/shared-layers.md); w_translation L_vtlm, masked words that are guessed
    from the image and its caption in another language (docs/languages.md); w_class_contrast (L_c,i2t + L_c,t2i +
    L_c,i2i + L_c,t2t), contrast by class, and w_classification L_class, the head's cross-entropy (docs/documents.md).

    `forward` reads queues, momentum encoders and filter and changes none of them; `update_state` does that. It can be
    called on micro-batches: with momentum features as negatives, their losses and gradients add up to those of the
    whole batch. A loss of weight 0 is not computed.

    Args:
        image: the image encoder; text: the text encoder.
        patch_head: predicts visual tokens; word_head: predicts text tokens, None if the tokenizer cannot mask any. With
            a weight of the translation it takes the embeddings of image and translation side by side, (B, 2 D).
        class_head: predicts classes; None without a weight of the classification.
        queue: keys of past pairs; noise_filter: the adaptive momentum filter.
        loss_weights: by loss.
        temperature: of the contrastive softmax.
        in_batch_negatives: negatives besides the queue: "none", as in the paper; "momentum" features of the batch's
            other pairs; or their "online" features, whose gradient trains both encoders (docs/decisions/0002).
        momentum: of the momentum encoders, per step, in [0, 1].

    Source: COTS, arXiv:2204.07441, section 3.
    """

    def __init__(
        self,
        *,
        image: ImageEncoder,
        text: TextEncoder,
        patch_head: MaskedTokenHead,
        word_head: MaskedTokenHead | None,
        class_head: ClassHead | None = None,
        queue: PairQueue,
        noise_filter: AdaptiveMomentumFilter,
        loss_weights: LossWeights,
        temperature: Temperature,
        in_batch_negatives: InBatchNegatives,
        momentum: float,
    ) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.image_m, self.text_m = MomentumEncoder(image), MomentumEncoder(text)
        self.patch_head, self.word_head, self.class_head = patch_head, word_head, class_head
        self.queue, self.noise_filter = queue, noise_filter
        self.loss_weights, self.temperature, self.momentum = loss_weights, temperature, momentum
        self.in_batch_negatives = in_batch_negatives
        self.translates = loss_weights.translation > 0  # also while `only` sets the weight to 0

    @property
    def needs_momentum(self) -> bool:
        """Whether negatives, queue or filter need the momentum encoders."""
        return self.in_batch_negatives != "online" or self.queue.size > 0 or self.noise_filter.num_std is not None

    @property
    def levels(self) -> list[str]:
        """Names of the losses that have a weight."""
        return [name for name, weight in self.loss_weights._asdict().items() if weight]

    @contextmanager
    def only(self, level: str) -> Iterator[None]:
        """Within this context all other losses have weight 0."""
        weights = self.loss_weights
        self.loss_weights = LossWeights(**dict.fromkeys(weights._fields, 0.0) | {level: getattr(weights, level)})
        try:
            yield
        finally:
            self.loss_weights = weights

    @property
    def _needs_logits(self) -> bool:
        """Whether a loss needs the logits of the unmasked pairs."""
        return bool(self.loss_weights.instance or self.loss_weights.task)

    @property
    def _needs_candidates(self) -> bool:
        """Whether a loss compares the unmasked pairs with others."""
        return bool(self._needs_logits or self.loss_weights.within_modality or self.loss_weights.class_contrast)

    @property
    def _needs_classes(self) -> bool:
        """Whether a loss needs the classes of the pairs."""
        return bool(self.loss_weights.class_contrast or self.loss_weights.classification)

    @torch.no_grad()
    def compute_keys(self, batch: Batch, micro_batches: list[slice]) -> KeyFeatures:
        """Momentum features of the global batch, computed by micro-batch, and which pairs the filter keeps."""
        image_index = all_gather_with_grad(batch.image_index)
        num_masked_here = batch.mlm_mask.sum(dim=1)
        num_masked, num_translated = all_gather_with_grad(num_masked_here), None
        if batch.has_translation is not None:
            num_translated = all_gather_with_grad(num_masked_here * batch.has_translation)
        class_index = None if batch.class_index is None else all_gather_with_grad(batch.class_index)
        if not self.needs_momentum:
            empty, keep_all = self.queue.images[:0], torch.ones_like(image_index, dtype=torch.bool)
            return KeyFeatures(
                empty, empty, image_index, num_masked, empty[:, 0], keep_all, num_translated, class_index
            )
        parts = [batch] if len(micro_batches) == 1 else [batch.select(rows) for rows in micro_batches]
        images = all_gather_with_grad(torch.cat([part.per_pair(self.image_m(part.frames)) for part in parts]))
        texts = all_gather_with_grad(torch.cat([self.text_m(part.input_ids, part.attention_mask) for part in parts]))
        similarity = (images * texts).sum(dim=1)
        keep_mask = self.noise_filter.keep_mask(similarity)
        if isinstance(self.image.backbone, FSDPModule):  # every rank must run each layer equally often
            keep_mask = keep_at_least(keep_mask, similarity, min_kept=len(micro_batches))
        return KeyFeatures(images, texts, image_index, num_masked, similarity, keep_mask, num_translated, class_index)

    def forward(self, batch: Batch, keys: KeyFeatures, rows: slice = ALL_ROWS) -> LossOutput:
        """The losses of some rows, as shares of the global batch's losses.

        Args:
            batch: this rank's pairs.
            keys: of the global batch.
            rows: slice of this rank's kept pairs; these are the queries.
        """
        queries = keys.keep_mask[local_slice(len(keys.keep_mask))].nonzero()[rows, 0]
        if not len(queries):
            return self._zero_loss(keys)
        encoded, functions = self.encode_rows(batch, keys, queries), self.loss_functions()
        weights = {name: weight for name, weight in self.loss_weights._asdict().items() if weight}
        losses = {name: functions[name](encoded) for name in weights}
        total = sum((weights[name] * losses[name] for name in weights), encoded.image.new_zeros(()))
        similarity = (encoded.image * encoded.text).detach().sum(dim=1)
        return LossOutput(total, {name: loss.detach() for name, loss in losses.items()}, similarity)

    def _zero_loss(self, keys: KeyFeatures) -> LossOutput:
        """A loss of zero, if the filter dropped every pair of this rank; it still takes part in the collectives."""
        total = keys.images.new_zeros((), requires_grad=True)
        if self.in_batch_negatives == "online":
            calls = self._needs_candidates + bool(self.loss_weights.masked_views)  # of `candidate_features`
            for _ in range(calls):
                no_rows = keys.images.new_zeros(0, 2, keys.images.shape[1], requires_grad=True)
                total = total + 0 * all_gather_with_grad(no_rows).sum()  # it has the other ranks' rows
        losses = {name: total.detach() for name, weight in self.loss_weights._asdict().items() if weight}
        return LossOutput(total, losses, total.new_zeros(0))

    def loss_functions(self) -> dict[str, Callable[[EncodedRows], Tensor]]:
        """By the name of its weight, each loss: the share that some encoded rows have in the global batch's loss."""
        return {
            "instance": self.instance_loss,
            "token": self.token_loss,
            "task": self.task_loss,
            "masked_views": self.masked_views_loss,
            "within_modality": self.within_modality_loss,
            "translation": self.translation_loss,
            "class_contrast": lambda encoded: class_contrast_loss(encoded, temperature=self.temperature()),
            "classification": lambda encoded: classification_loss(encoded, self.class_head),
        }

    def encode_rows(self, batch: Batch, keys: KeyFeatures, queries: Tensor) -> EncodedRows:
        """Run the encoders on some of this rank's pairs, (R,), unmasked and, if a loss needs it, masked.

        There is no host-device sync after `select_candidates` and what finds targets, nor in the losses.
        """
        all_rows = len(queries) == len(batch.image_index)  # a copy of the batch would take 1 % of a step on a CPU
        rows = batch if all_rows else batch.select(queries)
        candidates = select_candidates(keys, queries, self.queue, in_batch=self.in_batch_negatives != "none")
        targets, masked_image, masked_text = None, None, None
        classes = find_class_targets(rows, keys, candidates) if self._needs_classes else None
        embed_masked = self.loss_weights.masked_views > 0
        if self.loss_weights.token or embed_masked or self.loss_weights.translation:
            targets = find_masked_targets(rows, keys, candidates)
        if self.loss_weights.token or embed_masked:
            frame_mask = rows.bool_masked_pos.repeat_interleave(rows.frames.shape[1], dim=0)  # the same in all frames
            image, masked_image = self.image.forward_clean_and_masked(
                rows.frames, frame_mask, embed_masked=embed_masked
            )
            if masked_image.embedding is not None:
                masked_image = masked_image._replace(embedding=rows.per_pair(masked_image.embedding))
        else:
            image = self.image(rows.frames)
        if targets and self.word_head:
            masked_text = self.text.forward_masked(
                rows.mlm_input_ids, rows.attention_mask, targets.tokens, embed_masked=embed_masked
            )
        image = rows.per_pair(image)
        text = self.text(rows.input_ids, rows.attention_mask)
        if targets and masked_text is None:  # no token can be masked: the text as it is
            masked_text = MaskedOutput(text[:0], text)
        features = self.candidate_features(image, text, keys, candidates) if self._needs_candidates else None
        logits = self.compute_logits(image, text, features, candidates) if features and self._needs_logits else None
        other = rows.per_pair(self.image(rows.other_frames)) if self.loss_weights.within_modality else None
        share = len(queries) / len(candidates.rows)
        return EncodedRows(
            rows,
            keys,
            candidates,
            share,
            image,
            text,
            features,
            logits,
            targets,
            masked_image,
            masked_text,
            other,
            classes,
        )

    def instance_loss(self, encoded: EncodedRows) -> Tensor:
        """Momentum contrast in both directions."""
        assert encoded.logits is not None
        return encoded.share * symmetric_info_nce(encoded.logits)

    def token_loss(self, encoded: EncodedRows) -> Tensor:
        """Masked vision and masked language modeling, each given the embedding of the paired modality."""
        assert encoded.masked_targets is not None
        assert encoded.masked_image is not None
        assert encoded.masked_text is not None
        rows, targets = encoded.batch, encoded.masked_targets
        patch_tokens = encoded.masked_image.tokens[targets.encoded_patches]
        mvm = self.mvm_loss(rows, targets.patches, patch_tokens, encoded.text)
        if self.word_head is None:
            return encoded.share * mvm
        mlm = self.mlm_loss(
            rows, targets.tokens, encoded.masked_text.tokens, encoded.image, num_masked=targets.num_masked_tokens
        )
        return encoded.share * mvm + mlm

    def mvm_loss(self, rows: Batch, positions: TokenIndex, tokens: Tensor, text: Tensor) -> Tensor:
        """Masked vision modeling, from tokens (M, W) at the masked patches and text embeddings (R, D)."""
        logits = self.patch_head(tokens, positions.rows, text)
        return masked_cross_entropy(logits, positions.select(rows.per_pair(rows.visual_tokens)), num_masked=len(logits))

    def mlm_loss(self, rows: Batch, positions: TokenIndex, tokens: Tensor, image: Tensor, *, num_masked: int) -> Tensor:
        """Masked language modeling, from tokens (M, W) at the masked positions and image embeddings (R, D)."""
        assert self.word_head
        if self.translates:
            image = F.pad(image, (0, image.shape[1]))  # no translation
        logits = self.word_head(tokens, positions.rows, image)
        return masked_cross_entropy(logits, positions.select(rows.input_ids), num_masked=num_masked)

    def task_loss(self, encoded: EncodedRows) -> Tensor:
        """How differently the two directions rank the candidates."""
        assert encoded.logits is not None
        return encoded.share * symmetric_kl(encoded.logits.i2t, encoded.logits.t2i)

    def masked_views_loss(self, encoded: EncodedRows) -> Tensor:
        """Momentum contrast between masked images and masked texts."""
        assert encoded.masked_image is not None
        assert encoded.masked_text is not None
        assert encoded.masked_image.embedding is not None
        assert encoded.masked_text.embedding is not None
        image, text = encoded.masked_image.embedding, encoded.masked_text.embedding
        features = self.candidate_features(image, text, encoded.keys, encoded.candidates)
        return encoded.share * symmetric_info_nce(self.compute_logits(image, text, features, encoded.candidates))

    def translation_loss(self, encoded: EncodedRows) -> Tensor:
        """Masked language modeling given the image and its caption in another language; other pairs add nothing."""
        rows, targets = encoded.batch, encoded.masked_targets
        assert targets is not None
        assert encoded.masked_text is not None
        assert rows.translation_input_ids is not None
        assert rows.translation_attention_mask is not None
        assert rows.has_translation is not None
        assert self.word_head
        translation = self.text(rows.translation_input_ids, rows.translation_attention_mask)
        paired = torch.cat([encoded.image, translation], dim=1)
        logits = self.word_head(encoded.masked_text.tokens, targets.tokens.rows, paired)
        words = targets.tokens.select(rows.input_ids)
        words = words.masked_fill(~rows.has_translation[targets.tokens.rows], IGNORED)
        return masked_cross_entropy(logits, words, num_masked=targets.num_translated_tokens)

    def within_modality_loss(self, encoded: EncodedRows) -> Tensor:
        """Contrast within each modality: a second crop finds its image, a caption the other captions of its image."""
        assert encoded.candidate_features is not None
        assert encoded.other_image is not None
        candidates, (images, texts) = encoded.candidates, encoded.candidate_features
        i2i = contrastive_logits(
            encoded.other_image,
            images,
            candidates.images,
            ignore_mask=candidates.ignore_mask,
            temperature=self.temperature(),
        )
        positives = candidates.same_image(encoded.keys.image_index)
        ignored = candidates.ignore_mask.scatter(1, candidates.targets[:, None], True) & ~positives
        t2t = contrastive_logits(
            encoded.text, texts, candidates.texts, ignore_mask=ignored, temperature=self.temperature()
        )
        return encoded.share * (info_nce(i2i, candidates.targets) + multi_positive_info_nce(t2t, positives))

    def candidate_features(
        self, image: Tensor, text: Tensor, keys: KeyFeatures, candidates: CandidateSet
    ) -> CandidateFeatures:
        """Features of the kept pairs, as `in_batch_negatives` says; `image` and `text` are this rank's rows (R, D)."""
        if self.in_batch_negatives == "online":
            return CandidateFeatures(*all_gather_with_grad(torch.stack([image, text], dim=1)).unbind(dim=1))
        return CandidateFeatures(keys.images[candidates.rows], keys.texts[candidates.rows])

    def compute_logits(
        self, image: Tensor, text: Tensor, features: CandidateFeatures, candidates: CandidateSet
    ) -> Logits:
        """Logits of the queries `image` and `text`, (R, D) each, against the candidates' features."""
        contrast = partial(contrastive_logits, ignore_mask=candidates.ignore_mask, temperature=self.temperature())
        i2t, t2i = contrast(image, features.texts, candidates.texts), contrast(text, features.images, candidates.images)
        return Logits(i2t, t2i, candidates.targets)

    @torch.no_grad()
    def update_state(self, keys: KeyFeatures) -> None:
        """Update momentum encoders, queues, filter and temperature; called once after each optimizer step."""
        self.temperature.clamp_()
        self.image_m.update(self.image, self.momentum)
        self.text_m.update(self.text, self.momentum)
        if self.needs_momentum:
            self.queue.enqueue(
                keys.images[keys.keep_mask], keys.texts[keys.keep_mask], keys.image_index[keys.keep_mask]
            )
        self.noise_filter.update(keys.similarity)

    def metrics(self, keys: KeyFeatures) -> dict[str, float]:
        """What the curves show besides the losses; the filter's only where it may drop a pair."""
        noise = self.noise_filter
        values = {}
        if noise.num_std is not None:
            values = {
                KEEP_RATE: float(keys.keep_mask.float().mean()),
                FILTER_THRESHOLD: max(noise.threshold, -1.0),
            }
        return values | {
            SIMILARITY_MEAN: noise.mean,
            SIMILARITY_STD: noise.std,
            "temperature": float(self.temperature().detach()),
        }
