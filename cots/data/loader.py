"""Training batches from shards and crop views: a fixed function of seed and step, so a run can resume at any step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from cots.data.classes import SampleClasses
from cots.data.frame_sampling import random_per_segment
from cots.data.frozen_features import FrozenFeatures
from cots.data.hard_negative_order import HardNegativeOrder
from cots.data.masking import mask_tokens, random_block_mask
from cots.data.open_shards import OpenShards
from cots.data.random_crop import crop
from cots.data.sample_order import Places, SampleOrder
from cots.data.sample_views import OpenShard, SampleView
from cots.data.stored_frames import open_frame
from cots.data.streaming import prefetch
from cots.data.token_batch import TokenBatch, tokenize
from cots.distributed import local_slice
from cots.errors import BadInput


class NumpyBatch(NamedTuple):
    """A batch in numpy, with the fields of `cots.objectives.protocol.Batch`; pixels are still bytes.

    Fields of the token level have no columns if it is off.
    """

    image_index: NDArray[np.int64]  # (B,)
    caption_index: NDArray[np.int64]  # (B,)
    frame_row: NDArray[np.int64]  # (B,)
    frames: NDArray[np.uint8]  # (S, T, H, W, 3), or (0,) beside frozen features
    input_ids: NDArray[np.int64]  # (B, L)
    attention_mask: NDArray[np.bool_]  # (B, L)
    bool_masked_pos: NDArray[np.bool_]  # (S, N) or (S, 0)
    visual_tokens: NDArray[np.int64]  # (S, N) or (S, 0)
    mlm_input_ids: NDArray[np.int64]  # (B, L) or (B, 0)
    mlm_mask: NDArray[np.bool_]  # (B, L) or (B, 0)
    translation_input_ids: NDArray[np.int64] | None = None  # (B, L'); this and the next two None if none is needed
    translation_attention_mask: NDArray[np.bool_] | None = None  # (B, L')
    has_translation: NDArray[np.bool_] | None = None  # (B,)
    class_index: NDArray[np.int64] | None = None  # (B,); None if no loss needs classes
    frozen_features: NDArray[np.float16] | None = None  # (S, 1, L, W)
    other_frames: NDArray[np.uint8] | NDArray[np.float16] | None = None  # as the first, of a second crop


class PendingBatch(NamedTuple):
    """A batch whose images are not decoded yet."""

    arrays: NumpyBatch  # with empty `frames`
    frames: list[tuple[SampleView, list[int]]]  # for each of the S samples: its view, and the indices of its frames
    other_frames: list[tuple[SampleView, list[int]]]  # likewise of a second view; empty if no two are compared


class Share(NamedTuple):
    """What of a batch is this process's.

    Attributes:
        num_samples: of the batch; num_pairs: likewise.
        pairs: this process's; samples: those of these pairs. A sample whose pairs are shared is read by both processes.
        skipped_pairs: pairs of the first of these samples that are another process's.
        frame_row: for each of these pairs, the number of its sample among these.
    """

    num_samples: int
    num_pairs: int
    pairs: slice
    samples: slice
    skipped_pairs: int
    frame_row: NDArray[np.int64]


def _share_of(pairs_per_sample: NDArray[np.int64]) -> Share:
    sample_row = np.repeat(np.arange(len(pairs_per_sample)), pairs_per_sample)
    pairs = local_slice(len(sample_row))
    rows = sample_row[pairs]
    skipped = pairs.start - int(np.searchsorted(sample_row, rows[0]))
    samples = slice(int(rows[0]), int(rows[-1]) + 1)
    return Share(len(pairs_per_sample), len(sample_row), pairs, samples, skipped, rows - rows[0])


@dataclass(frozen=True, kw_only=True)
class Masking:
    """What the token level masks.

    Attributes:
        grid: patches along a side of an image.
        num_masked: masked patches per image.
        min_block: minimum number of patches in a block.
        mlm_probability: fraction of the tokens of a text.
    """

    grid: int
    num_masked: int
    min_block: int
    mlm_probability: float


@dataclass(frozen=True, kw_only=True)
class TrainLoader:
    """An endless stream of training batches; each batch is a fixed function of `seed` and the step.

    An epoch takes each sample once, in an order of its own, except for the last, short batch. Each sample comes with
    the view of that epoch and some of its captions, drawn at random; each of them is a pair with it. Of a batch's pairs
    this process reads, tokenizes and decodes its own share. Order and random numbers are those of the whole batch,
    whatever the number of processes; they cost little, because no sample is read for them.

    Attributes:
        shards: tar files.
        views: files of crop views, one per shard.
        keys: keys of all samples of the manifest, ascending; a sample's index is its position here.
        caption_offsets: per sample, the index of its first caption among all captions of the manifest.
        shard_rows: for each shard, the indices of its samples.
        max_tokens: of a text; text_length: of every text with its padding, None if it depends on the batch.
        batch_size: samples per batch, at most as many as there are.
        captions_per_sample: at most; samples with fewer come with all they have.
        language_weights: of each caption in the draw, by its language; None if all weigh the same.
        frames: per sample. 1 takes the frame of the view; more take a random one from each of as many segments.
        size: side of the crops, pixels.
        masking: None turns off the token level's fields.
        translations: whether each pair comes with a caption of its sample in another language.
        classes: of all samples, in the order of `keys`; None if no loss needs them.
        seed: of everything random.
        threads: how many decode images, each for a batch of its own.
        num_views: of each sample that are used, one in each epoch, over and over.
        two_crops: whether a batch has the sample's next view beside that of the epoch.
        frozen_features: of these views, in place of pixels; None decodes the images.
        hard_negatives: (N, k) per sample, keys of those that it is confused with; None leaves the order random.
        hard_share: of the samples are followed by one of them, see `followed_by_nearest`.
    """

    shards: tuple[Path, ...]
    views: tuple[Path, ...]
    keys: NDArray[np.int64]
    caption_offsets: NDArray[np.int64]
    shard_rows: tuple[range, ...]
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    text_length: int | None = None
    batch_size: int
    captions_per_sample: int = 1
    language_weights: Mapping[str, float] | None = None
    frames: int
    size: int
    masking: Masking | None
    translations: bool = False
    classes: SampleClasses | None = None
    seed: int
    threads: int
    num_views: int
    two_crops: bool = False
    frozen_features: FrozenFeatures | None = None
    hard_negatives: NDArray[np.int64] | None = None
    hard_share: float = 0.0

    @property
    def num_samples(self) -> int:
        """In all shards."""
        return sum(map(len, self.shard_rows))

    def iter_from(self, step: int) -> Iterator[NumpyBatch]:
        """The batches from `step` on; as many as there are threads are computed ahead. No sample of another is read."""
        yield from prefetch(self._collate_from(step), self.decode, threads=self.threads)

    def _collate_from(self, step: int) -> Iterator[PendingBatch]:
        order, opened = self.order(), self.open_shards()
        for number in count(step):
            yield self.collate(order.batch(number), number, opened)

    def order(self) -> SampleOrder:
        """Which samples each batch takes."""
        if self.hard_negatives is None:
            return SampleOrder(self.shard_rows, batch_size=self.batch_size, seed=self.seed)
        return HardNegativeOrder(
            self.shard_rows,
            batch_size=self.batch_size,
            seed=self.seed,
            keys=self.keys,
            nearest=self.hard_negatives,
            share=self.hard_share,
        )

    def read_views(self, shard: int, epoch: int) -> Iterator[SampleView]:
        """The samples of a shard, in its order, each with the view of an epoch."""
        opened = self._open(shard)
        for row in range(len(opened.samples)):
            yield self.read_view(opened, row, epoch)

    def read_view(self, opened: OpenShard, row: int, epoch: int) -> SampleView:
        """A sample with the view of an epoch, and with its next one if two crops are compared."""
        return opened.read(row, [(epoch + number) % self.num_views for number in range(1 + self.two_crops)])

    def _open(self, shard: int) -> OpenShard:
        return OpenShard(shard, self.shards[shard], self.views[shard])

    def open_shards(self) -> OpenShards[OpenShard]:
        """Shards and views for `collate`; none is open at first."""
        return OpenShards(self._open)

    def _read(self, places: Places, samples: NDArray[np.int64], opened: OpenShards[OpenShard]) -> list[SampleView]:
        """Read some samples of a batch."""
        shards = opened.select(places.shards[samples])
        views = [
            self.read_view(shards[shard], row, places.epoch)
            for shard, row in zip(places.shards[samples].tolist(), places.rows[samples].tolist(), strict=True)
        ]
        for index, view in zip(places.image_index[samples], views, strict=True):
            num_captions = self.caption_offsets[index + 1] - self.caption_offsets[index]
            if (int(view.sample.key), len(view.sample.captions)) != (self.keys[index], num_captions):
                raise BadInput(
                    f"sample {view.sample.id!r} in {self.shards[view.place[0]]} is not the one of the manifest: "
                    "run `dvc repro --force prepare`"
                )
        return views

    def collate(self, places: Places, step: int, opened: OpenShards[OpenShard]) -> PendingBatch:
        """Read this process's share of a batch; numbers for captions, masks, frames, translations are drawn for all."""
        rng = np.random.default_rng((self.seed, 1, step))
        num_captions = self.caption_offsets[places.image_index + 1] - self.caption_offsets[places.image_index]
        share = _share_of(np.minimum(num_captions, self.captions_per_sample))
        views = self._read(places, np.arange(share.samples.start, share.samples.stop), opened)
        captions = self._choose_captions(rng, num_captions, share, views)
        pair_views = [views[row] for row in share.frame_row]
        texts = [view.sample.captions[caption] for view, caption in zip(pair_views, captions, strict=True)]
        text_batch = tokenize(self.tokenizer, texts, max_tokens=self.max_tokens, length=self.text_length)
        bool_masked_pos = self._mask_patches(step, share)
        mlm_mask, mlm_input_ids = self._mask_texts(rng, text_batch, share)
        frames = self._choose_frames(rng, share, views)
        pair_images = places.image_index[share.samples][share.frame_row]
        arrays = NumpyBatch(
            image_index=pair_images,
            caption_index=self.caption_offsets[pair_images] + captions,
            frame_row=share.frame_row,
            frames=np.empty(0, np.uint8),
            input_ids=text_batch.input_ids,
            attention_mask=text_batch.attention_mask,
            bool_masked_pos=bool_masked_pos,
            visual_tokens=np.stack([view.tokens[: bool_masked_pos.shape[1]] for view in views]).astype(np.int64),
            mlm_input_ids=mlm_input_ids,
            mlm_mask=mlm_mask,
        )
        if self.translations:
            uniform = rng.random(share.num_pairs)[share.pairs]
            arrays = arrays._replace(**self._choose_translations(uniform, pair_views, captions.tolist()))
        if self.classes:
            arrays = arrays._replace(class_index=self.classes.numbers[pair_images])
        others = [view.other for view in views if view.other]
        other_frames = self._choose_frames(rng, share, others) if others else []
        return PendingBatch(arrays, [*zip(views, frames, strict=True)], [*zip(others, other_frames, strict=True)])

    def _choose_captions(
        self, rng: np.random.Generator, num_captions: NDArray[np.int64], share: Share, views: list[SampleView]
    ) -> NDArray[np.int64]:
        """The index of each pair's caption among those of its sample; no sample comes with one twice.

        A sample's captions are taken in ascending order of -log(1 - u) / w, u a random number for each caption of the
        batch: one after another with probabilities proportional to their weights w.
        """
        ends = np.cumsum(num_captions)
        waiting = -np.log1p(-rng.random(ends[-1]))
        chosen = []
        for view, end in zip(views, ends[share.samples], strict=True):
            order = waiting[end - len(view.sample.captions) : end]
            if self.language_weights and view.sample.languages:
                order = order / [self.language_weights[language] for language in view.sample.languages]
            chosen.append(order.argsort(kind="stable")[: self.captions_per_sample])
        return np.concatenate(chosen)[share.skipped_pairs :][: len(share.frame_row)]

    def _choose_translations(
        self, uniform: NDArray[np.float64], pair_views: list[SampleView], captions: list[int]
    ) -> dict[str, NDArray[Any]]:
        """For each pair a random caption of its sample in another language; its own one where there is none."""
        texts: list[str] = []
        has_translation: list[bool] = []
        for number, view, caption in zip(uniform, pair_views, captions, strict=True):
            tags = view.sample.languages or [""] * len(view.sample.captions)
            others = [other for other, tag in enumerate(tags) if tag and tags[caption] not in ("", tag)]
            has_translation.append(bool(others))
            texts.append(view.sample.captions[others[int(number * len(others))] if others else caption])
        batch = tokenize(self.tokenizer, texts, max_tokens=self.max_tokens, length=self.text_length)
        return {
            "translation_input_ids": batch.input_ids,
            "translation_attention_mask": batch.attention_mask,
            "has_translation": np.array(has_translation),
        }

    def decode(self, pending: PendingBatch) -> NumpyBatch:
        """The batch with its pixels, or with frozen features in their place."""
        shown = [self._show(frames) for frames in (pending.frames, pending.other_frames) if frames]
        arrays = pending.arrays._replace(other_frames=shown[1] if len(shown) > 1 else None)
        return arrays._replace(frozen_features=shown[0]) if self.frozen_features else arrays._replace(frames=shown[0])

    def _show(self, frames: list[tuple[SampleView, list[int]]]) -> NDArray[Any]:
        """(S, T, H, W, 3) pixels of some views, or (S, 1, L, W) frozen features."""
        if self.frozen_features:
            return np.stack([self.frozen_features.select(*view.place) for view, _ in frames])[:, None]
        return np.stack([self.crop_frames(view, indices) for view, indices in frames])

    def _mask_patches(self, step: int, share: Share) -> NDArray[np.bool_]:
        """Masked patches of this process's samples; without columns if the token level is off."""
        if self.masking is None:
            return np.zeros((share.samples.stop - share.samples.start, 0), dtype=bool)
        masking = self.masking
        return random_block_mask(
            np.random.default_rng((self.seed, 5, step)),
            share.num_samples,
            grid=masking.grid,
            num_masked=masking.num_masked,
            min_block=masking.min_block,
            images=share.samples,
        )

    def _mask_texts(
        self, rng: np.random.Generator, texts: TokenBatch, share: Share
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Masked tokens and corrupted token ids of this process's pairs; without columns if the token level is off.

        No token is masked if the tokenizer has no [MASK], as CLIP's.
        """
        if self.masking is None:
            empty = np.zeros((len(texts.input_ids), 0), dtype=bool)
            return empty, empty.astype(np.int64)
        if self.tokenizer.mask_token_id is None:
            return np.zeros_like(texts.maskable), texts.input_ids
        uniform = rng.random((3, share.num_pairs, self.text_length or self.max_tokens))
        mlm_input_ids, mlm_mask = mask_tokens(
            uniform[:, share.pairs, : texts.input_ids.shape[1]],
            texts.input_ids,
            texts.maskable,
            probability=self.masking.mlm_probability,
            mask_token=int(self.tokenizer.mask_token_id),
            vocab_size=len(self.tokenizer),
        )
        return mlm_mask, mlm_input_ids

    def _choose_frames(self, rng: np.random.Generator, share: Share, views: list[SampleView]) -> list[list[int]]:
        """Of each sample of this process the frame of its view, or a random one from each of `frames` segments."""
        if self.frames == 1:
            return [[view.frame] for view in views]
        uniform = rng.random((share.num_samples, self.frames))[share.samples]
        return [random_per_segment(row, len(view.sample.frames)) for row, view in zip(uniform, views, strict=True)]

    def crop_frames(self, view: SampleView, indices: list[int]) -> NDArray[np.uint8]:
        """(T, H, W, 3): some frames, each cropped to the view's box."""
        frames = (open_frame(view.sample, index) for index in indices)
        return np.stack([crop(frame, view.box, self.size) for frame in frames])
