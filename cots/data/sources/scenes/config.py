"""The keys of source `scenes`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from cots.config_base import Config, Fraction
from cots.data.samples import Sample


class SplitCountsConfig(Config):
    """How many samples each split has."""

    train: PositiveInt = Field(default=4000, description="Samples to train on.")
    val: NonNegativeInt = Field(default=500, description="Samples to choose settings on.")
    test: NonNegativeInt = Field(default=500, description="Samples to report on.")


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

    def read(self) -> Iterator[Sample]:
        """Draw the samples."""
        from cots.data.sources.scenes.source import draw_scenes  # numpy and Pillow, which parameters do not need

        return draw_scenes(**self.model_dump(exclude={"kind"}))
