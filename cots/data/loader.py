"""Training batches from shards and views: a fixed function of seed and step, so that a run resumes anywhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from cots.data.crop_views import CropViews
from cots.data.frame_sampling import random_per_segment
from cots.data.masking import mask_tokens, random_block_mask
from cots.data.random_crop import Box, crop, open_frame
from cots.data.samples import StoredSample
from cots.data.shards import read_shard
from cots.data.streaming import endless, prefetch, shuffled
from cots.data.token_batch import TokenBatch, tokenize


class SampleView(NamedTuple):
    """A stored sample with one of its views."""

    sample: StoredSample
    frame: int
    box: Box
    tokens: NDArray[np.uint16]


class NumpyBatch(NamedTuple):
    """A batch in numpy; the fields are those of `cots.objectives.cots.Batch`, pixels still bytes."""

    image_index: NDArray[np.int64]  # (B,)
    caption_index: NDArray[np.int64]  # (B,)
    frames: NDArray[np.uint8]  # (B, T, H, W, 3)
    input_ids: NDArray[np.int64]  # (B, L)
    attention_mask: NDArray[np.bool_]  # (B, L)
    bool_masked_pos: NDArray[np.bool_]  # (B, N), or (B, 0) where the token level is off
    visual_tokens: NDArray[np.int64]  # likewise
    mlm_input_ids: NDArray[np.int64]  # (B, L) or (B, 0)
    mlm_mask: NDArray[np.bool_]  # likewise


class PendingBatch(NamedTuple):
    """A batch whose pictures are still to be decoded."""

    arrays: NumpyBatch  # without pixels
    frames: list[tuple[SampleView, list[int]]]  # of each row, the sample and which of its frames


@dataclass(frozen=True, kw_only=True)
class Masking:
    """What the token level hides."""

    grid: int  # patches along a side
    patches: int  # hidden ones a picture
    block: int  # patches of the smallest block
    words: float  # share of the words


@dataclass(frozen=True, kw_only=True)
class TrainLoader:
    """Batches of a split's shards, without end.

    Every epoch takes each sample once (the last, short batch aside), in an order of its own, each sample in the
    epoch's view with one of its captions drawn. Everything follows from `seed` and the step.

    Attributes:
        shards: tar files; views: their views files, in the same order.
        keys: of all samples of the manifest, rising; a sample's number is its place here.
        first_captions: per sample number, the number of its first caption among all captions.
        num_samples: in all shards.
        batch: samples a batch, at most `num_samples`.
        frames: per clip; 1 takes the frame that the view names, more take one drawn from each of as many segments.
        size: pixels along a side of the crops.
        masking: None switches the token level's fields off.
        rows: of each batch, those that this process makes; what is drawn for the others is drawn all the same.
        threads: that decode pictures, of several batches at once.
    """

    shards: tuple[Path, ...]
    views: tuple[Path, ...]
    keys: NDArray[np.int64]
    caption_offsets: NDArray[np.int64]
    num_samples: int
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    batch_size: int
    frames: int
    size: int
    masking: Masking | None
    rows: slice
    seed: int
    threads: int

    def iter_from(self, step: int) -> Iterator[NumpyBatch]:
        """The batches from `step` on; as many as there are threads are made ahead."""
        chosen = endless(self._epoch, num_samples=self.num_samples, batch_size=self.batch_size, start=step)
        drawn = (self.collate(samples, number) for number, samples in enumerate(chosen, start=step))
        yield from prefetch(drawn, self.decode, threads=self.threads)

    def _epoch(self, epoch: int) -> Iterator[SampleView]:
        yield from shuffled(lambda shard: self._shard(shard, epoch), len(self.shards), seed=self.seed, epoch=epoch)

    def _shard(self, shard: int, epoch: int) -> Iterator[SampleView]:
        views = CropViews.load(self.views[shard])
        view = epoch % views.tokens.shape[1]
        columns = (views.frames[:, view].tolist(), views.boxes[:, view].tolist(), views.tokens[:, view])
        for sample, frame, box, tokens in zip(read_shard(self.shards[shard]), *columns, strict=True):
            yield SampleView(sample, frame, box, tokens)

    def collate(self, chosen: list[SampleView], step: int) -> PendingBatch:
        """Own rows of a batch; captions, masks and frames are drawn from seed and step, in this order."""
        rng = np.random.default_rng((self.seed, 1, step))
        numbers = np.searchsorted(self.keys, [int(item.sample.key) for item in chosen]).astype(np.int64)
        captions = [int(rng.integers(len(item.sample.captions))) for item in chosen]
        texts = [item.sample.captions[caption] for item, caption in zip(chosen, captions, strict=True)]
        words = tokenize(self.tokenizer, texts, max_tokens=self.max_tokens)
        patches, hidden, corrupted = self.mask(rng, words)
        tokens = np.stack([item.tokens for item in chosen])[:, : patches.shape[1]]
        frames = [self.frame_numbers(rng, item) for item in chosen]
        mine = self.rows
        arrays = NumpyBatch(
            image_index=numbers[mine],
            caption_index=(self.caption_offsets[numbers] + captions)[mine],
            frames=np.empty(0, np.uint8),
            input_ids=words.input_ids[mine],
            attention_mask=words.attention_mask[mine],
            bool_masked_pos=patches[mine],
            visual_tokens=tokens.astype(np.int64)[mine],
            mlm_input_ids=corrupted[mine],
            mlm_mask=hidden[mine],
        )
        return PendingBatch(arrays, list(zip(chosen[mine], frames[mine], strict=True)))

    def decode(self, drawn: PendingBatch) -> NumpyBatch:
        """The batch with its pixels."""
        return drawn.arrays._replace(frames=np.stack([self.pixels(*one) for one in drawn.frames]))

    def mask(
        self, rng: np.random.Generator, words: TokenBatch
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
        """Hidden patches, hidden words and corrupted ids, each with no columns where the token level is off."""
        masking, count = self.masking, len(words.input_ids)
        if masking is None:
            off = np.zeros((count, 0), dtype=bool)
            return off, off, off.astype(np.int64)
        patches = random_block_mask(rng, count, grid=masking.grid, count=masking.patches, block=masking.block)
        mask, vocab = int(self.tokenizer.mask_token_id), len(self.tokenizer)
        corrupted, hidden = mask_tokens(
            rng, words.input_ids, words.maskable, probability=masking.words, mask=mask, vocab=vocab
        )
        return patches, hidden, corrupted

    def frame_numbers(self, rng: np.random.Generator, item: SampleView) -> list[int]:
        """The view's frame, or one drawn from each of T equal segments."""
        return [item.frame] if self.frames == 1 else random_per_segment(rng, len(item.sample.frames), self.frames)

    def pixels(self, item: SampleView, numbers: list[int]) -> NDArray[np.uint8]:
        """(T, H, W, 3): frames by number, cut by the view's box."""
        frames = (open_frame(item.sample.frames[number]) for number in numbers)
        return np.stack([crop(frame, item.box, self.size) for frame in frames])
