"""The paper on one screen: the losses of a batch, and the one method that moves queues and momentum."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from cots.curves import FILTER_THRESHOLD, KEEP_RATE, SIMILARITY_MEAN, SIMILARITY_STD
from cots.distributed import all_gather_with_grad, local_slice
from cots.losses.alignment import symmetric_kl
from cots.losses.contrastive import contrastive_logits, info_nce, same_image_mask
from cots.losses.filter import AdaptiveMomentumFilter, keep_at_least
from cots.losses.masked import masked_cross_entropy
from cots.models.encoder import ImageEncoder, MaskedOutput, TextEncoder
from cots.models.heads import MaskedTokenHead
from cots.models.momentum import MomentumEncoder
from cots.models.queue import PairQueue
from cots.models.temperature import Temperature
from cots.models.token_index import TokenIndex
from cots.objectives.protocol import ALL_ROWS, Batch, KeyFeatures, LossOutput, Objective

InBatchNegatives = Literal["none", "momentum", "online"]


class LossWeights(NamedTuple):
    """Weights of the three levels of interaction, and of the instance level between masked views, >= 0."""

    instance: float
    token: float
    task: float
    masked_views: float


class Logits(NamedTuple):
    """Both directions over the same candidates: the batch's pairs, then the queue's."""

    i2t: Tensor  # (R, B + K) logits
    t2i: Tensor  # (R, B + K)
    targets: Tensor  # (R,) column of each row's own partner


class CandidateSet(NamedTuple):
    """What the queries of a forward pass are held against: the pairs that the filter kept, then the queue."""

    rows: Tensor  # (B,) number of each among the pairs of all processes
    targets: Tensor  # (R,) which of them the queries are
    ignore_mask: Tensor  # (R, B + K) bool, True = no negative of this query
    images: Tensor  # (K, D) the queue's
    texts: Tensor  # (K, D)


class MaskedTargets(NamedTuple):
    """What the token level guesses: the hidden patches and words of some rows."""

    patches: TokenIndex
    tokens: TokenIndex
    num_masked_tokens: int  # hidden words of the whole batch, all processes together


class EncodedRows(NamedTuple):
    """What the streams make of some rows of a batch: all that the losses are computed from."""

    batch: Batch  # R rows
    keys: KeyFeatures
    candidates: CandidateSet
    share: float  # of the global batch's kept pairs, that these rows are
    image: Tensor  # (R, D)
    text: Tensor  # (R, D)
    logits: Logits | None  # None where neither instance nor task level is trained
    masked_targets: MaskedTargets | None  # None, and so the next two, where no masked pass is asked for
    masked_image: MaskedOutput | None  # of the masked pictures
    masked_text: MaskedOutput | None  # of the masked texts


def symmetric_info_nce(logits: Logits) -> Tensor:
    """L_i2t + L_t2i."""
    return info_nce(logits.i2t, logits.targets) + info_nce(logits.t2i, logits.targets)


class CotsObjective(Objective[KeyFeatures]):
    """The COTS training objective: L = w_instance (L_i2t + L_t2i) + w_token (L_mvm + L_mlm) + w_task L_task.

    A fourth term is this project's: w_masked_views (L_i2t + L_t2i) of the masked pictures and the masked texts, which
    the token level has encoded anyway (docs/decisions/0007).

    `forward` is pure: it reads queues, momentum streams and filter, and changes none of them; `advance` does that.
    It may be given the rows of a batch part by part: with keys as negatives, the parts' losses and gradients add up
    to the whole batch's. A level of weight 0 is not computed.

    Args:
        image: the image stream; text: the text stream.
        patch_head: predicts visual tokens; word_head: predicts words.
        queue: past keys; noise_filter: the adaptive momentum filter.
        weights: of the three levels.
        temperature: of the contrastive softmax.
        batch_negatives: what stands beside the queue: "none", as the paper writes it; the batch's other
            "momentum" features, or its other "online" ones, whose gradient teaches both (docs/decisions/0002).
        momentum: of the momentum streams, per step, in [0, 1].

    Source: COTS, arXiv:2204.07441, section 3.
    """

    def __init__(
        self,
        *,
        image: ImageEncoder,
        text: TextEncoder,
        patch_head: MaskedTokenHead,
        word_head: MaskedTokenHead,
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
        self.patch_head, self.word_head = patch_head, word_head
        self.queue, self.noise_filter = queue, noise_filter
        self.loss_weights, self.temperature, self.momentum = loss_weights, temperature, momentum
        self.in_batch_negatives = in_batch_negatives

    @property
    def needs_momentum(self) -> bool:
        """Whether anything depends on the momentum streams: negatives, queue or filter."""
        return self.in_batch_negatives != "online" or self.queue.size > 0 or self.noise_filter.num_std is not None

    @torch.no_grad()
    def compute_keys(self, batch: Batch, micro_batches: list[slice]) -> KeyFeatures:
        """Momentum features of the whole batch, computed part by part, and which pairs the filter keeps."""
        samples, words = all_gather_with_grad(batch.image_index), all_gather_with_grad(batch.mlm_mask.sum(dim=1))
        if not self.needs_momentum:
            none = self.queue.images[:0]
            return KeyFeatures(none, none, samples, words, none[:, 0], torch.ones_like(samples, dtype=torch.bool))
        images = all_gather_with_grad(torch.cat([self.image_m(batch.frames[rows]) for rows in micro_batches]))
        texts = all_gather_with_grad(
            torch.cat([self.text_m(batch.input_ids[rows], batch.attention_mask[rows]) for rows in micro_batches])
        )
        similarity = (images * texts).sum(dim=1)
        kept = self.noise_filter.keep_mask(similarity)
        if isinstance(self.image.backbone, FSDPModule):  # whose processes must come to the same layers equally often
            kept = keep_at_least(kept, similarity, min_kept=len(micro_batches))
        return KeyFeatures(images, texts, samples, words, similarity, kept)

    def forward(self, batch: Batch, keys: KeyFeatures, rows: slice = ALL_ROWS) -> LossOutput:
        """The losses of some rows of a batch, as shares of the whole batch's, all processes together.

        Args:
            batch: pairs of this process.
            keys: of all processes.
            rows: which of the batch's pairs that the filter kept are queries here.
        """
        chosen = keys.keep_mask[local_slice(len(keys.keep_mask))].nonzero()[rows, 0]
        if not len(chosen):
            return self._zero_loss(keys)
        passes = self.encode_rows(batch, keys, chosen)
        levels = self.loss_functions()
        losses = {name: levels[name](passes) for name, weight in self.loss_weights._asdict().items() if weight}
        total = sum(
            (getattr(self.loss_weights, name) * loss for name, loss in losses.items()), passes.image.new_zeros(())
        )
        alike = (passes.image * passes.text).detach().sum(dim=1)
        return LossOutput(total, {name: loss.detach() for name, loss in losses.items()}, alike)

    def loss_functions(self) -> dict[str, Callable[[EncodedRows], Tensor]]:
        """Each loss by the name of its weight, as the share of the global batch's that the rows of a pass have."""
        return {
            "instance": self.instance_loss,
            "token": self.token_loss,
            "task": self.task_loss,
            "masked_views": self.masked_views_loss,
        }

    def encode_rows(self, batch: Batch, keys: KeyFeatures, chosen: Tensor) -> EncodedRows:
        """Put (R,) these of this process's pairs through the streams, as often as the weights ask for.

        Nothing in it or in the losses asks an accelerator for a number, and so waits for it, but `candidates`.
        """
        whole = len(chosen) == len(batch.image_index)  # whose copy would take 1 % of a step on a processor
        part, among = batch if whole else batch.select(chosen), self.select_candidates(keys, chosen)
        guessed, hidden, masked = self.find_masked_targets(part, keys, among), None, None
        if guessed is not None:
            views = self.loss_weights.masked_views > 0
            tubes = part.bool_masked_pos.repeat_interleave(part.frames.shape[1], dim=0)  # alike in all frames of a clip
            image, hidden = self.image.forward_clean_and_masked(part.frames, tubes, embed_masked=views)
            masked = self.text.forward_masked(
                part.mlm_input_ids, part.attention_mask, guessed.tokens, embed_masked=views
            )
        else:
            image = self.image(part.frames)
        text = self.text(part.input_ids, part.attention_mask)
        similar = self.compute_logits(image, text, keys, among) if self._needs_logits()[0] else None
        share = len(chosen) / len(among.rows)
        return EncodedRows(part, keys, among, share, image, text, similar, guessed, hidden, masked)

    def instance_loss(self, passes: EncodedRows) -> Tensor:
        """Momentum contrast in both directions."""
        assert passes.logits is not None
        return passes.share * symmetric_info_nce(passes.logits)

    def token_loss(self, passes: EncodedRows) -> Tensor:
        """Masked vision modelling and masked language modelling, each given the paired modality."""
        assert passes.masked_targets is not None
        assert passes.masked_image is not None
        assert passes.masked_text is not None
        part, guessed = passes.batch, passes.masked_targets
        seeing = self.mvm_loss(part, guessed.patches, passes.masked_image.tokens, passes.text)
        reading = self.mlm_loss(
            part, guessed.tokens, passes.masked_text.tokens, passes.image, out_of=guessed.num_masked_tokens
        )
        return passes.share * seeing + reading

    def task_loss(self, passes: EncodedRows) -> Tensor:
        """How differently the two directions rank the candidates."""
        assert passes.logits is not None
        return passes.share * symmetric_kl(passes.logits.i2t, passes.logits.t2i)

    def masked_views_loss(self, passes: EncodedRows) -> Tensor:
        """Momentum contrast between masked pictures and masked texts."""
        assert passes.masked_image is not None
        assert passes.masked_text is not None
        assert passes.masked_image.embedding is not None
        assert passes.masked_text.embedding is not None
        views = self.compute_logits(
            passes.masked_image.embedding, passes.masked_text.embedding, passes.keys, passes.candidates
        )
        return passes.share * symmetric_info_nce(views)

    def _needs_logits(self) -> tuple[bool, bool]:
        """Which similarities are computed: of the pairs, and of their masked views."""
        return bool(self.loss_weights.instance or self.loss_weights.task), bool(self.loss_weights.masked_views)

    def select_candidates(self, keys: KeyFeatures, chosen: Tensor) -> CandidateSet:
        """What the queries are held against, which are (R,) these of this process's pairs."""
        kept = keys.keep_mask.nonzero()[:, 0]
        number = keys.keep_mask.cumsum(dim=0) - 1  # of each pair among those that are kept
        positives = number[local_slice(len(keys.keep_mask))][chosen]
        excluded = self.build_ignore_mask(keys.image_index[kept], positives)
        return CandidateSet(kept, positives, excluded, self.queue.images, self.queue.texts)

    def compute_logits(self, image: Tensor, text: Tensor, keys: KeyFeatures, among: CandidateSet) -> Logits:
        """Logits of the queries `image` and `text`, (R, D) each."""
        if self.in_batch_negatives == "online":
            images, texts = all_gather_with_grad(torch.stack([image, text], dim=1)).unbind(dim=1)
        else:
            images, texts = keys.images[among.rows], keys.texts[among.rows]
        temperature = self.temperature()
        return Logits(
            contrastive_logits(image, texts, among.texts, ignore_mask=among.ignore_mask, temperature=temperature),
            contrastive_logits(text, images, among.images, ignore_mask=among.ignore_mask, temperature=temperature),
            among.targets,
        )

    def _zero_loss(self, keys: KeyFeatures) -> LossOutput:
        """Nothing, where the filter dropped every pair of this process; the others still meet it where they gather."""
        total = keys.images.new_zeros((), requires_grad=True)
        if self.in_batch_negatives == "online":
            for _ in range(sum(self._needs_logits())):
                total = (
                    total
                    + all_gather_with_grad(keys.images.new_zeros(0, 2, keys.images.shape[1], requires_grad=True)).sum()
                )
        losses = {name: total.detach() for name, weight in self.loss_weights._asdict().items() if weight}
        return LossOutput(total, losses, total.new_zeros(0))

    def build_ignore_mask(self, samples: Tensor, positives: Tensor) -> Tensor:
        """(R, B + K) bool: which candidates are no negatives of a query, its own picture's others above all.

        Args:
            samples: (B,) the kept pairs' pictures; positives: (R,) which of them the queries are.
        """
        mine = samples[positives]
        others = same_image_mask(mine, samples) | (self.in_batch_negatives == "none")
        others = others.scatter(1, positives[:, None], False)
        return torch.cat([others, same_image_mask(mine, self.queue.image_index)], dim=1)

    def find_masked_targets(self, part: Batch, keys: KeyFeatures, among: CandidateSet) -> MaskedTargets | None:
        """What is hidden in some rows; None where no masked pass is asked for."""
        if not (self.loss_weights.token or self.loss_weights.masked_views):
            return None
        words = int(keys.num_masked_tokens[among.rows].sum())
        return MaskedTargets(TokenIndex.from_mask(part.bool_masked_pos), TokenIndex.from_mask(part.mlm_mask), words)

    def mvm_loss(self, part: Batch, places: TokenIndex, hidden: Tensor, text: Tensor) -> Tensor:
        """Masked vision modelling, from tokens (M, W) of the hidden patches and the captions' features (R, D)."""
        logits = self.patch_head(hidden, places.rows, text)
        return masked_cross_entropy(logits, places.select(part.visual_tokens), num_masked=len(logits))

    def mlm_loss(self, part: Batch, places: TokenIndex, hidden: Tensor, image: Tensor, *, out_of: int) -> Tensor:
        """Masked language modelling, from tokens (M, W) of the hidden words and the pictures' features (R, D)."""
        logits = self.word_head(hidden, places.rows, image)
        return masked_cross_entropy(logits, places.select(part.input_ids), num_masked=out_of)

    @torch.no_grad()
    def update_state(self, keys: KeyFeatures) -> None:
        """Move the momentum streams, the queues and the filter one step; called once after each optimiser step."""
        self.image_m.update(self.image, self.momentum)
        self.text_m.update(self.text, self.momentum)
        if self.needs_momentum:
            self.queue.enqueue(
                keys.images[keys.keep_mask], keys.texts[keys.keep_mask], keys.image_index[keys.keep_mask]
            )
        self.noise_filter.update(keys.similarity)

    def metrics(self, keys: KeyFeatures) -> dict[str, float]:
        """What the curves show besides the losses."""
        noise = self.noise_filter
        return {
            KEEP_RATE: float(keys.keep_mask.float().mean()),
            SIMILARITY_MEAN: noise.mean,
            SIMILARITY_STD: noise.std,
            FILTER_THRESHOLD: max(noise.threshold, -1.0),
            "temperature": float(self.temperature().detach()),
        }
