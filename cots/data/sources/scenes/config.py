"""The keys of source `scenes`."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from cots.config_base import Config, Fraction, Seed
from cots.data.samples import Sample
from cots.data.sources.parts import Part


class SplitCountsConfig(Config):
    """How many samples each split has."""

    train: PositiveInt = Field(default=4000, description="Training samples.")
    val: NonNegativeInt = Field(default=500, description="Samples for choosing settings.")
    test: NonNegativeInt = Field(default=500, description="Samples for reported results.")


class ScenesSourceConfig(Config):
    """Drawn scenes, generated from a grammar and a seed."""

    kind: Literal["scenes"] = Field(default="scenes", description="Drawn scenes: needs no data.")
    path: Path = Field(
        default=Path("cots/data/scenes.yaml"),
        description="Grammar file: shapes, colours, textures, words.",
    )
    seed: Seed = Field(default=0, description="Seed of the scenes.")
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

    def read(self) -> Iterator[Sample]:
        """Draw the samples."""
        return chain.from_iterable(part.read() for part in self.parts())

    def parts(self) -> Iterator[Part]:
        """Some scenes of one split and kind of media each."""
        from cots.data.sources.scenes.source import draw_scenes  # numpy and Pillow, which parameters do not need

        return draw_scenes(**self.model_dump(exclude={"kind"}))
