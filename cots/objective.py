"""The paper on one screen: the losses of a batch, and the one method that moves queues and momentum."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from cots.dist import gathered, own
from cots.losses.alignment import symmetric_kl
from cots.losses.contrastive import contrastive_logits, info_nce, same_picture
from cots.losses.filter import MomentumFilter, kept_by_all
from cots.losses.masked import masked_cross_entropy
from cots.models.heads import TokenHead
from cots.models.momentum import MomentumCopy
from cots.models.places import Places
from cots.models.queue import PairQueue
from cots.models.stream import Hidden, ImageStream, TextStream
from cots.models.temperature import Temperature
from cots.objectives.protocol import WHOLE, Batch, Keys, Objective, Outcome

BatchNegatives = Literal["none", "momentum", "online"]


class Levels(NamedTuple):
    """Weights of the three levels of interaction, and of the instance level between masked views, >= 0."""

    instance: float
    token: float
    task: float
    masked_views: float


class Similarities(NamedTuple):
    """Both directions over the same candidates: the batch's pairs, then the queue's."""

    i2t: Tensor  # (R, B + K) logits
    t2i: Tensor  # (R, B + K)
    positives: Tensor  # (R,) column of each row's own partner


class Candidates(NamedTuple):
    """What the queries of a forward pass are held against: the pairs that the filter kept, then the queue."""

    kept: Tensor  # (B,) number of each among the pairs of all processes
    positives: Tensor  # (R,) which of them the queries are
    excluded: Tensor  # (R, B + K) bool, True = no negative of this query
    images: Tensor  # (K, D) the queue's
    texts: Tensor  # (K, D)


class Guessed(NamedTuple):
    """What the token level guesses: the hidden patches and words of some rows."""

    patches: Places
    words: Places
    all_words: int  # hidden words of the whole batch, all processes together


class Passes(NamedTuple):
    """What the streams make of some rows of a batch: all that the losses are computed from."""

    batch: Batch  # R rows
    keys: Keys
    among: Candidates
    share: float  # of the global batch's kept pairs, that these rows are
    image: Tensor  # (R, D)
    text: Tensor  # (R, D)
    similar: Similarities | None  # None where neither instance nor task level is trained
    guessed: Guessed | None  # None, and so the next two, where no masked pass is asked for
    hidden: Hidden | None  # of the masked pictures
    masked: Hidden | None  # of the masked texts


def both_ways(similar: Similarities) -> Tensor:
    """L_i2t + L_t2i."""
    return info_nce(similar.i2t, similar.positives) + info_nce(similar.t2i, similar.positives)


class CotsObjective(Objective[Keys]):
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
        image: ImageStream,
        text: TextStream,
        patch_head: TokenHead,
        word_head: TokenHead,
        queue: PairQueue,
        noise_filter: MomentumFilter,
        weights: Levels,
        temperature: Temperature,
        batch_negatives: BatchNegatives,
        momentum: float,
    ) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.image_slow, self.text_slow = MomentumCopy(image), MomentumCopy(text)
        self.patch_head, self.word_head = patch_head, word_head
        self.queue, self.noise_filter = queue, noise_filter
        self.weights, self.temperature, self.momentum = weights, temperature, momentum
        self.batch_negatives = batch_negatives

    @property
    def asks_momentum(self) -> bool:
        """Whether anything depends on the momentum streams: negatives, queue or filter."""
        return self.batch_negatives != "online" or self.queue.size > 0 or self.noise_filter.deviations is not None

    @torch.no_grad()
    def keys(self, batch: Batch, parts: list[slice]) -> Keys:
        """Momentum features of the whole batch, computed part by part, and which pairs the filter keeps."""
        samples, words = gathered(batch.samples), gathered(batch.masked_words.sum(dim=1))
        if not self.asks_momentum:
            none = self.queue.images[:0]
            return Keys(none, none, samples, words, none[:, 0], torch.ones_like(samples, dtype=torch.bool))
        images = gathered(torch.cat([self.image_slow(batch.frames[rows]) for rows in parts]))
        texts = gathered(torch.cat([self.text_slow(batch.ids[rows], batch.attended[rows]) for rows in parts]))
        similarity = (images * texts).sum(dim=1)
        kept = self.noise_filter.keep(similarity)
        if isinstance(self.image.backbone, FSDPModule):  # whose processes must come to the same layers equally often
            kept = kept_by_all(kept, similarity, least=len(parts))
        return Keys(images, texts, samples, words, similarity, kept)

    def forward(self, batch: Batch, keys: Keys, rows: slice = WHOLE) -> Outcome:
        """The losses of some rows of a batch, as shares of the whole batch's, all processes together.

        Args:
            batch: pairs of this process.
            keys: of all processes.
            rows: which of the batch's pairs that the filter kept are queries here.
        """
        chosen = keys.kept[own(len(keys.kept))].nonzero()[rows, 0]
        if not len(chosen):
            return self._none(keys)
        passes = self.passes(batch, keys, chosen)
        levels = self.levels()
        losses = {name: levels[name](passes) for name, weight in self.weights._asdict().items() if weight}
        total = sum((getattr(self.weights, name) * loss for name, loss in losses.items()), passes.image.new_zeros(()))
        alike = (passes.image * passes.text).detach().sum(dim=1)
        return Outcome(total, {name: loss.detach() for name, loss in losses.items()}, alike)

    def levels(self) -> dict[str, Callable[[Passes], Tensor]]:
        """Each loss by the name of its weight, as the share of the global batch's that the rows of a pass have."""
        return {
            "instance": self.instance_loss,
            "token": self.token_loss,
            "task": self.task_loss,
            "masked_views": self.masked_views_loss,
        }

    def passes(self, batch: Batch, keys: Keys, chosen: Tensor) -> Passes:
        """Put (R,) these of this process's pairs through the streams, as often as the weights ask for.

        Nothing in it or in the losses asks an accelerator for a number, and so waits for it, but `candidates`.
        """
        whole = len(chosen) == len(batch.samples)  # whose copy would take 1 % of a step on a processor
        part, among = batch if whole else batch.take(chosen), self.candidates(keys, chosen)
        guessed, hidden, masked = self.guessed(part, keys, among), None, None
        if guessed is not None:
            views = self.weights.masked_views > 0
            tubes = part.masked_patches.repeat_interleave(part.frames.shape[1], dim=0)  # alike in all frames of a clip
            image, hidden = self.image.clean_and_masked(part.frames, tubes, view=views)
            masked = self.text.masked(part.corrupted_ids, part.attended, guessed.words, view=views)
        else:
            image = self.image(part.frames)
        text = self.text(part.ids, part.attended)
        similar = self.similarities(image, text, keys, among) if self._contrasts()[0] else None
        share = len(chosen) / len(among.kept)
        return Passes(part, keys, among, share, image, text, similar, guessed, hidden, masked)

    def instance_loss(self, passes: Passes) -> Tensor:
        """Momentum contrast in both directions."""
        assert passes.similar is not None
        return passes.share * both_ways(passes.similar)

    def token_loss(self, passes: Passes) -> Tensor:
        """Masked vision modelling and masked language modelling, each given the paired modality."""
        assert passes.guessed is not None
        assert passes.hidden is not None
        assert passes.masked is not None
        part, guessed = passes.batch, passes.guessed
        seeing = self.patch_loss(part, guessed.patches, passes.hidden.tokens, passes.text)
        reading = self.word_loss(part, guessed.words, passes.masked.tokens, passes.image, out_of=guessed.all_words)
        return passes.share * seeing + reading

    def task_loss(self, passes: Passes) -> Tensor:
        """How differently the two directions rank the candidates."""
        assert passes.similar is not None
        return passes.share * symmetric_kl(passes.similar.i2t, passes.similar.t2i)

    def masked_views_loss(self, passes: Passes) -> Tensor:
        """Momentum contrast between masked pictures and masked texts."""
        assert passes.hidden is not None
        assert passes.masked is not None
        assert passes.hidden.feature is not None
        assert passes.masked.feature is not None
        views = self.similarities(passes.hidden.feature, passes.masked.feature, passes.keys, passes.among)
        return passes.share * both_ways(views)

    def _contrasts(self) -> tuple[bool, bool]:
        """Which similarities are computed: of the pairs, and of their masked views."""
        return bool(self.weights.instance or self.weights.task), bool(self.weights.masked_views)

    def candidates(self, keys: Keys, chosen: Tensor) -> Candidates:
        """What the queries are held against, which are (R,) these of this process's pairs."""
        kept = keys.kept.nonzero()[:, 0]
        number = keys.kept.cumsum(dim=0) - 1  # of each pair among those that are kept
        positives = number[own(len(keys.kept))][chosen]
        excluded = self.excluded(keys.samples[kept], positives)
        return Candidates(kept, positives, excluded, self.queue.images, self.queue.texts)

    def similarities(self, image: Tensor, text: Tensor, keys: Keys, among: Candidates) -> Similarities:
        """Logits of the queries `image` and `text`, (R, D) each."""
        if self.batch_negatives == "online":
            images, texts = gathered(torch.stack([image, text], dim=1)).unbind(dim=1)
        else:
            images, texts = keys.images[among.kept], keys.texts[among.kept]
        temperature = self.temperature()
        return Similarities(
            contrastive_logits(image, texts, among.texts, excluded=among.excluded, temperature=temperature),
            contrastive_logits(text, images, among.images, excluded=among.excluded, temperature=temperature),
            among.positives,
        )

    def _none(self, keys: Keys) -> Outcome:
        """Nothing, where the filter dropped every pair of this process; the others still meet it where they gather."""
        total = keys.images.new_zeros((), requires_grad=True)
        if self.batch_negatives == "online":
            for _ in range(sum(self._contrasts())):
                total = total + gathered(keys.images.new_zeros(0, 2, keys.images.shape[1], requires_grad=True)).sum()
        losses = {name: total.detach() for name, weight in self.weights._asdict().items() if weight}
        return Outcome(total, losses, total.new_zeros(0))

    def excluded(self, samples: Tensor, positives: Tensor) -> Tensor:
        """(R, B + K) bool: which candidates are no negatives of a query, its own picture's others above all.

        Args:
            samples: (B,) the kept pairs' pictures; positives: (R,) which of them the queries are.
        """
        mine = samples[positives]
        others = same_picture(mine, samples) | (self.batch_negatives == "none")
        others = others.scatter(1, positives[:, None], False)
        return torch.cat([others, same_picture(mine, self.queue.samples)], dim=1)

    def guessed(self, part: Batch, keys: Keys, among: Candidates) -> Guessed | None:
        """What is hidden in some rows; None where no masked pass is asked for."""
        if not (self.weights.token or self.weights.masked_views):
            return None
        words = int(keys.words[among.kept].sum())
        return Guessed(Places.of(part.masked_patches), Places.of(part.masked_words), words)

    def patch_loss(self, part: Batch, places: Places, hidden: Tensor, text: Tensor) -> Tensor:
        """Masked vision modelling, from tokens (M, W) of the hidden patches and the captions' features (R, D)."""
        logits = self.patch_head(hidden, places.rows, text)
        return masked_cross_entropy(logits, places.among(part.visual_tokens), out_of=len(logits))

    def word_loss(self, part: Batch, places: Places, hidden: Tensor, image: Tensor, *, out_of: int) -> Tensor:
        """Masked language modelling, from tokens (M, W) of the hidden words and the pictures' features (R, D)."""
        logits = self.word_head(hidden, places.rows, image)
        return masked_cross_entropy(logits, places.among(part.ids), out_of=out_of)

    @torch.no_grad()
    def advance(self, keys: Keys) -> None:
        """Move the momentum streams, the queues and the filter one step; called once after each optimiser step."""
        self.image_slow.follow(self.image, self.momentum)
        self.text_slow.follow(self.text, self.momentum)
        if self.asks_momentum:
            self.queue.push(keys.images[keys.kept], keys.texts[keys.kept], keys.samples[keys.kept])
        self.noise_filter.observe(keys.similarity)

    def figures(self, keys: Keys) -> dict[str, float]:
        """What the curves show besides the losses."""
        noise = self.noise_filter
        return {
            "kept": float(keys.kept.float().mean()),
            "mean": noise.mean,
            "sigma": noise.sigma,
            "threshold": max(noise.threshold, -1.0),
            "temperature": float(self.temperature().detach()),
        }
