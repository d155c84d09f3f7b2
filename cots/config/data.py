"""Sections of the data: the source, what becomes of it, what must be true of it, its views."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cots.config.values import Count, Positive, PositiveFloat, Section, Share


class SplitCounts(Section):
    """How many samples each split has."""

    train: Positive
    val: Count
    test: Count


class Holdout(Section):
    """Shares of the samples that become val and test where the source names no split."""

    val: Share
    test: Share


class ScenesSource(Section):
    """Drawn scenes, generated from a grammar and a seed."""

    kind: Literal["scenes"]
    path: Path
    seed: int
    size: Positive  # pixels
    pictures: SplitCounts
    clips: SplitCounts
    clip_frames: Positive
    captions: Positive
    wrong_captions: Share


class KarpathySource(Section):
    """COCO, Flickr30K or Flickr8k in the Karpathy layout: a folder with one dataset_*.json and the pictures."""

    kind: Literal["karpathy"]
    path: Path


class CocoSource(Section):
    """COCO's own layout: annotations/captions_<split>2014.json or 2017 and one picture folder a split."""

    kind: Literal["coco"]
    path: Path


class FolderSource(Section):
    """A folder with a caption table (CSV, TSV or JSONL) that names pictures and clips relative to it."""

    kind: Literal["folder"]
    path: Path
    seed: int
    holdout: Holdout


class WebdatasetSource(Section):
    """Tar files as img2dataset and video2dataset write them: picture or clip, .txt caption and .json side by side."""

    kind: Literal["webdataset"]
    path: Path
    seed: int
    holdout: Holdout


class MsrvttSource(Section):
    """MSR-VTT's JSON and folders of mp4 clips."""

    kind: Literal["msrvtt"]
    path: Path
    protocol: Literal["full", "1k-A"]


Source = Annotated[
    ScenesSource | KarpathySource | CocoSource | FolderSource | WebdatasetSource | MsrvttSource,
    Field(discriminator="kind"),
]


class Prepare(Section):
    """What becomes of a source's pictures on their way into the shards."""

    size: Positive
    frames: Positive
    min_side: Positive
    max_pixels: Positive
    max_caption_chars: Positive
    samples_per_shard: Positive
    max_rejected: Share


class Validate(Section):
    """What the data must satisfy to enter."""

    max_duplicates: Share
    max_leakage: Share
    max_suspects: Share
    max_caption_words: Positive
    sampled_shards: Positive


class Tokenize(Section):
    """The views of each sample: crop boxes drawn once, tokenized once."""

    seed: int
    views: Positive
    scale: tuple[PositiveFloat, PositiveFloat]
    ratio: tuple[PositiveFloat, PositiveFloat]
    batch: Positive

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {self.scale} must rise and end at 1 at most")
        if not self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {self.ratio} must rise")
        return self
