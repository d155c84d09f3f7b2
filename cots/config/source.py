"""Section `source`: which data, in which layout."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from cots.config.sections import Sections
from cots.config.values import Config, Fraction


class SplitCountsConfig(Config):
    """How many samples each split has."""

    train: PositiveInt = Field(default=4000, description="Samples to train on.")
    val: NonNegativeInt = Field(default=500, description="Samples to choose settings on.")
    test: NonNegativeInt = Field(default=500, description="Samples to report on.")


class HoldoutConfig(Config):
    """Fractions of the samples that become val and test where the source names no split."""

    val: Fraction = Field(default=0.1, description="Fraction of the samples.")
    test: Fraction = Field(default=0.1, description="Fraction of the samples.")


HOLDOUT = "Fractions that become val and test where the source names no split."


class ScenesSourceConfig(Config):
    """Drawn scenes, generated from a grammar and a seed."""

    kind: Literal["scenes"] = Field(default="scenes", description="Drawn scenes: needs no data.")
    path: Path = Field(
        default=Path("cots/data/scenes.yaml"),
        description="The grammar: shapes, colours, textures, words.",
    )
    seed: int = Field(default=0, description="Of drawing.")
    size: PositiveInt = Field(default=64, description="Side of the images, pixels.")
    images: SplitCountsConfig = Field(default=SplitCountsConfig(), description="How many images each split has.")
    videos: SplitCountsConfig = Field(
        default=SplitCountsConfig(train=400, val=50, test=100), description="How many videos each split has."
    )
    video_frames: PositiveInt = Field(default=6, description="Frames of a video.")
    captions: PositiveInt = Field(default=5, description="Captions of an image or video.")
    caption_noise: Fraction = Field(
        default=0.1, description="Fraction of the training captions that describe another image."
    )


class KarpathySourceConfig(Config):
    """COCO, Flickr30K or Flickr8k in the Karpathy layout."""

    kind: Literal["karpathy"] = Field(
        default="karpathy", description="COCO, Flickr30K or Flickr8k in the Karpathy layout."
    )
    path: Path = Field(description="A folder with one dataset_*.json and the images.")


class CocoSourceConfig(Config):
    """COCO's own layout."""

    kind: Literal["coco"] = Field(default="coco", description="COCO's own layout.")
    path: Path = Field(
        description="A folder with annotations/captions_<split>2014.json or 2017 and one image folder a split."
    )


class FolderSourceConfig(Config):
    """A folder with a caption table that names images and videos relative to it."""

    kind: Literal["folder"] = Field(default="folder", description="A folder with a caption table.")
    path: Path = Field(
        description="A folder with a caption table (CSV, TSV or JSONL): image, caption and maybe split. "
        "Files whose names end in mp4, m4v, mov, mkv, webm or avi are videos."
    )
    seed: int = Field(default=0, description="Of the holdout.")
    holdout: HoldoutConfig = Field(default=HoldoutConfig(), description=HOLDOUT)


class WebdatasetSourceConfig(Config):
    """Tar files as img2dataset and video2dataset write them."""

    kind: Literal["webdataset"] = Field(
        default="webdataset", description="Tar files as img2dataset and video2dataset write them."
    )
    path: Path = Field(
        description="The folder of the tars: image or video, .txt caption and .json side by side. "
        "Files whose names end in mp4, m4v, mov, mkv, webm or avi are videos."
    )
    seed: int = Field(default=0, description="Of the holdout.")
    holdout: HoldoutConfig = Field(default=HoldoutConfig(), description=HOLDOUT)


class MsrvttSourceConfig(Config):
    """MSR-VTT's JSON and folders of mp4 videos."""

    kind: Literal["msrvtt"] = Field(default="msrvtt", description="MSR-VTT's JSON and folders of mp4 videos.")
    path: Path = Field(description="The folder of the release.")
    protocol: Literal["full", "1k-A"] = Field(
        default="full",
        description="The release's own splits (full), or 1k-A. full: 6,513 train, 497 val and 2,990 test videos with "
        "20 captions each. 1k-A: the 1,000 test videos with one caption each of `MSRVTT_JSFUSION_test.csv` in the data "
        "folder, all others to train on (or those of `MSRVTT_train.9k.csv`) and no val, so `evaluate.split: test`.",
    )


SourceConfig = Annotated[
    ScenesSourceConfig
    | KarpathySourceConfig
    | CocoSourceConfig
    | FolderSourceConfig
    | WebdatasetSourceConfig
    | MsrvttSourceConfig,
    Field(discriminator="kind"),
]


class SourceSection(Sections):
    """A file with section `source`."""

    source: SourceConfig = Field(default=ScenesSourceConfig(), description="Which data, in which layout.")
