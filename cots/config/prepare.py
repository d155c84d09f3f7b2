"""Section `prepare`: what becomes of a source's images on their way into the shards."""

from pydantic import Field, PositiveInt

from cots.config.sections import Sections
from cots.config_base import Config, Fraction


class PrepareConfig(Config):
    """What becomes of a source's images on their way into the shards."""

    size: PositiveInt = Field(
        default=80, description="Shorter side of stored images, pixels. Smaller images are not enlarged."
    )
    max_frames: PositiveInt = Field(
        default=6,
        description="Frames kept of a video, at most. The centers of as many equal segments (L), all frames where the "
        "video has no more; evaluation and index average all of them.",
    )
    min_side: PositiveInt = Field(default=16, description="Smaller images are rejected, pixels.")
    max_pixels: PositiveInt = Field(default=50_000_000, description="Larger images are rejected unopened.")
    max_caption_chars: PositiveInt = Field(default=500, description="Longer captions are left out.")
    samples_per_shard: PositiveInt = Field(default=1000, description="Samples in a tar.")
    max_rejected: Fraction = Field(default=0.05, description="Fraction of the source; more fails the stage.")


class PrepareSection(Sections):
    """A file with section `prepare`."""

    prepare: PrepareConfig = Field(
        default=PrepareConfig(), description="What becomes of the source's images on their way into the shards."
    )
