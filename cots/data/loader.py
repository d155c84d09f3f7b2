"""Training batches from shards and crop views: a fixed function of seed and step, so a run can resume at any step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from cots.data.classes import SampleClasses
from cots.data.crop_views import CropViews
from cots.data.frame_sampling import random_per_segment
from cots.data.frozen_features import FrozenFeatures
from cots.data.hard_negatives import followed_by_nearest
from cots.data.masking import mask_tokens, random_block_mask
from cots.data.random_crop import Box, crop
from cots.data.samples import StoredSample
from cots.data.shards import read_shard
from cots.data.stored_frames import open_frame
from cots.data.streaming import SHUFFLE_BUFFER, endless_batches, prefetch, shuffle_shards
from cots.data.token_batch import TokenBatch, tokenize
from cots.distributed import local_slice


class SampleView(NamedTuple):
    """A stored sample with one of its crop views."""

    sample: StoredSample
    place: tuple[int, int, int]  # number of the shard, of the view, and of the sample in its shard
    frame: int  # index of the frame that the view shows
    box: Box
    tokens: NDArray[np.uint16]
    other: "SampleView | None" = None  # the sample's next view, if two crops are compared


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
    this process decodes its own share; random numbers are drawn for all of them.

    Attributes:
        shards: tar files.
        views: files of crop views, one per shard.
        keys: keys of all samples of the manifest, ascending; a sample's index is its position here.
        caption_offsets: per sample, the index of its first caption among all captions of the manifest.
        num_samples: in all shards.
        max_tokens: of a text; text_length: of every text with its padding, None if it depends on the batch.
        batch_size: samples per batch, at most `num_samples`.
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
    num_samples: int
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

    def iter_from(self, step: int) -> Iterator[NumpyBatch]:
        """The batches from `step` on; as many as there are threads are computed ahead."""
        batches = endless_batches(
            self._epoch, num_samples=self.num_samples, batch_size=self.batch_size, first_batch=step
        )
        pending = (self.collate(views, number) for number, views in enumerate(batches, start=step))
        yield from prefetch(pending, self.decode, threads=self.threads)

    def _epoch(self, epoch: int) -> Iterator[SampleView]:
        views = shuffle_shards(
            lambda shard: self.read_views(shard, epoch), len(self.shards), seed=self.seed, epoch=epoch
        )
        if self.hard_negatives is None:
            yield from views
            return
        yield from followed_by_nearest(
            views,
            self._nearest,
            lambda view: int(view.sample.key),
            share=self.hard_share,
            window=SHUFFLE_BUFFER,
            rng=np.random.default_rng((self.seed, 2, epoch)),
        )

    def _nearest(self, view: SampleView) -> list[int]:
        """Keys of the hard negatives of a sample, nearest first."""
        assert self.hard_negatives is not None
        keys: list[int] = self.hard_negatives[np.searchsorted(self.keys, int(view.sample.key))].tolist()
        return keys

    def read_views(self, shard: int, epoch: int) -> Iterator[SampleView]:
        """The samples of a shard, in its order, each with the view of an epoch."""
        crops = CropViews.load(self.views[shard])
        shown = [(epoch + number) % self.num_views for number in range(1 + self.two_crops)]
        columns = [
            zip(crops.frames[:, view].tolist(), crops.boxes[:, view].tolist(), crops.tokens[:, view], strict=True)
            for view in shown
        ]
        for row, (sample, *drawn) in enumerate(zip(read_shard(self.shards[shard]), *columns, strict=True)):
            places = [(shard, view, row) for view in shown]
            view, *others = [SampleView(sample, place, *crop) for place, crop in zip(places, drawn, strict=True)]
            yield view._replace(other=others[0]) if others else view

    def collate(self, views: list[SampleView], step: int) -> PendingBatch:
        """Draw captions, masks, frames and translations of a whole batch, in this order; keep this process's share."""
        rng = np.random.default_rng((self.seed, 1, step))
        image_index = np.searchsorted(self.keys, [int(view.sample.key) for view in views]).astype(np.int64)
        captions = [self._draw_captions(rng, view) for view in views]
        sample_row = np.repeat(np.arange(len(views)), [len(drawn) for drawn in captions])  # of each pair
        texts = [
            view.sample.captions[caption] for view, drawn in zip(views, captions, strict=True) for caption in drawn
        ]
        text_batch = tokenize(self.tokenizer, texts, max_tokens=self.max_tokens, length=self.text_length)
        bool_masked_pos, mlm_mask, mlm_input_ids = self._draw_masks(rng, text_batch, num_samples=len(views))
        visual_tokens = np.stack([view.tokens for view in views])[:, : bool_masked_pos.shape[1]]
        frames = [self._draw_frames(rng, view) for view in views]
        pairs = local_slice(len(sample_row))
        samples, frame_row = np.unique(sample_row[pairs], return_inverse=True)
        pair_images = image_index[sample_row[pairs]]
        arrays = NumpyBatch(
            image_index=pair_images,
            caption_index=self.caption_offsets[pair_images] + np.concatenate(captions)[pairs],
            frame_row=frame_row.astype(np.int64),
            frames=np.empty(0, np.uint8),
            input_ids=text_batch.input_ids[pairs],
            attention_mask=text_batch.attention_mask[pairs],
            bool_masked_pos=bool_masked_pos[samples],
            visual_tokens=visual_tokens[samples].astype(np.int64),
            mlm_input_ids=mlm_input_ids[pairs],
            mlm_mask=mlm_mask[pairs],
        )
        if self.translations:
            arrays = arrays._replace(**self._draw_translations(rng, views, captions, pairs))
        if self.classes:
            arrays = arrays._replace(class_index=self.classes.numbers[pair_images])
        others = [(view.other, self._draw_frames(rng, view.other)) for view in views if view.other]
        return PendingBatch(
            arrays,
            [(views[sample], frames[sample]) for sample in samples],
            [others[sample] for sample in samples] if others else [],
        )

    def _draw_captions(self, rng: np.random.Generator, view: SampleView) -> list[int]:
        """Indices of one or several captions of a sample, without replacement."""
        count = len(view.sample.captions)
        if self.language_weights and len(set(view.sample.languages)) > 1:
            weights = np.array([self.language_weights[language] for language in view.sample.languages])
            drawn = min(self.captions_per_sample, count)
            return [int(index) for index in rng.choice(count, drawn, replace=False, p=weights / weights.sum())]
        if self.captions_per_sample == 1:
            return [int(rng.integers(count))]
        return [int(index) for index in rng.permutation(count)[: self.captions_per_sample]]

    def _draw_translations(
        self, rng: np.random.Generator, views: list[SampleView], captions: list[list[int]], pairs: slice
    ) -> dict[str, NDArray[Any]]:
        """For each pair a random caption of its sample in another language; its own one where there is none."""
        texts: list[str] = []
        has_translation: list[bool] = []
        for view, drawn in zip(views, captions, strict=True):
            tags = view.sample.languages or [""] * len(view.sample.captions)
            for caption in drawn:
                others = [other for other, tag in enumerate(tags) if tag and tags[caption] not in ("", tag)]
                has_translation.append(bool(others))
                texts.append(view.sample.captions[int(rng.choice(others)) if others else caption])
        batch = tokenize(self.tokenizer, texts, max_tokens=self.max_tokens, length=self.text_length)
        return {
            "translation_input_ids": batch.input_ids[pairs],
            "translation_attention_mask": batch.attention_mask[pairs],
            "has_translation": np.array(has_translation)[pairs],
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

    def _draw_masks(
        self, rng: np.random.Generator, texts: TokenBatch, *, num_samples: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
        """Masked patches, masked tokens and corrupted token ids; all without columns if the token level is off.

        No token is masked if the tokenizer has no [MASK], as CLIP's.
        """
        masking = self.masking
        if masking is None:
            empty = np.zeros((len(texts.input_ids), 0), dtype=bool)
            return empty[:num_samples], empty, empty.astype(np.int64)
        patches = random_block_mask(
            rng, num_samples, grid=masking.grid, num_masked=masking.num_masked, min_block=masking.min_block
        )
        if self.tokenizer.mask_token_id is None:
            return patches, np.zeros_like(texts.maskable), texts.input_ids
        mlm_input_ids, mlm_mask = mask_tokens(
            rng,
            texts.input_ids,
            texts.maskable,
            probability=masking.mlm_probability,
            mask_token=int(self.tokenizer.mask_token_id),
            vocab_size=len(self.tokenizer),
        )
        return patches, mlm_mask, mlm_input_ids

    def _draw_frames(self, rng: np.random.Generator, view: SampleView) -> list[int]:
        """The frame of the view, or a random one from each of `frames` segments."""
        return [view.frame] if self.frames == 1 else random_per_segment(rng, len(view.sample.frames), self.frames)

    def crop_frames(self, view: SampleView, indices: list[int]) -> NDArray[np.uint8]:
        """(T, H, W, 3): some frames, each cropped to the view's box."""
        frames = (open_frame(view.sample, index) for index in indices)
        return np.stack([crop(frame, view.box, self.size) for frame in frames])
