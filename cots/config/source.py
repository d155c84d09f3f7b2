"""Section `source`: the data set and its layout."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from cots.config.sections import Sections
from cots.config.values import Config, Fraction


class SplitCountsConfig(Config):
    """Number of samples in each split."""

    train: PositiveInt = Field(default=4000, description="Training samples.")
    val: NonNegativeInt = Field(default=500, description="Samples for choosing settings.")
    test: NonNegativeInt = Field(default=500, description="Samples for reported results.")


class HoldoutConfig(Config):
    """Fractions of the samples that become val and test if the source has no splits."""

    val: Fraction = Field(default=0.1, description="Fraction of the samples.")
    test: Fraction = Field(default=0.1, description="Fraction of the samples.")


HOLDOUT = "Fractions that become val and test if the source has no splits."


class ScenesSourceConfig(Config):
    """Drawn scenes with captions, generated from a grammar and a seed."""

    kind: Literal["scenes"] = Field(default="scenes", description="Drawn scenes: no data needed.")
    path: Path = Field(
        default=Path("cots/data/scenes.yaml"),
        description="Grammar file: shapes, colours, textures, words.",
    )
    seed: int = Field(default=0, description="Seed of the scenes.")
    size: PositiveInt = Field(default=64, description="Side of the images, pixels.")
    images: SplitCountsConfig = Field(default=SplitCountsConfig(), description="Number of images in each split.")
    videos: SplitCountsConfig = Field(
        default=SplitCountsConfig(train=400, val=50, test=100), description="Number of videos in each split."
    )
    video_frames: PositiveInt = Field(default=6, description="Frames per video.")
    captions: PositiveInt = Field(default=5, description="Captions per image or video.")
    caption_noise: Fraction = Field(
        default=0.1, description="Fraction of the training captions that describe another image."
    )


class KarpathySourceConfig(Config):
    """COCO, Flickr30K or Flickr8k in the Karpathy layout."""

    kind: Literal["karpathy"] = Field(
        default="karpathy", description="COCO, Flickr30K or Flickr8k in the Karpathy layout."
    )
    path: Path = Field(description="Folder with one dataset_*.json and the images.")


class CocoSourceConfig(Config):
    """COCO's own layout."""

    kind: Literal["coco"] = Field(default="coco", description="COCO's own layout.")
    path: Path = Field(
        description="Folder with annotations/captions_<split>2014.json or 2017 and one image folder per split."
    )


class FolderSourceConfig(Config):
    """A folder with a table of captions and the relative paths of their images and videos."""

    kind: Literal["folder"] = Field(default="folder", description="A folder with a caption table.")
    path: Path = Field(
        description="Folder with a caption table (CSV, TSV or JSONL): image, caption, optionally split. "
        "Files whose names end in mp4, m4v, mov, mkv, webm or avi are videos."
    )
    seed: int = Field(default=0, description="Seed of the holdout.")
    holdout: HoldoutConfig = Field(default=HoldoutConfig(), description=HOLDOUT)


class WebdatasetSourceConfig(Config):
    """Tar files as img2dataset and video2dataset write them."""

    kind: Literal["webdataset"] = Field(
        default="webdataset", description="Tar files as img2dataset and video2dataset write them."
    )
    path: Path = Field(
        description="Folder of the tars: image or video, .txt caption and .json of each sample. "
        "Files whose names end in mp4, m4v, mov, mkv, webm or avi are videos."
    )
    seed: int = Field(default=0, description="Seed of the holdout.")
    holdout: HoldoutConfig = Field(default=HoldoutConfig(), description=HOLDOUT)


class MsrvttSourceConfig(Config):
    """MSR-VTT's JSON and folders of mp4 videos."""

    kind: Literal["msrvtt"] = Field(default="msrvtt", description="MSR-VTT's JSON and folders of mp4 videos.")
    path: Path = Field(description="Folder of the release.")
    protocol: Literal["full", "1k-A"] = Field(
        default="full",
        description="full (the release's own splits) or 1k-A. full: 6,513 train, 497 val and 2,990 test videos with 20 "
        "captions each. 1k-A: the 1,000 test videos of `MSRVTT_JSFUSION_test.csv` in the data folder, with one caption "
        "each, all others for training or those of `MSRVTT_train.9k.csv`, and no val: set `evaluate.split: test`.",
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

    source: SourceConfig = Field(default=ScenesSourceConfig(), description="The data set and its layout.")
