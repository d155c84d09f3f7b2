"""Section `prepare`: how images and videos are stored in shards."""

from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from cots.config.sections import Sections
from cots.config_base import Config, Fraction
from cots.data.limits import MAX_BYTES, MAX_CAPTION_CHARS, MAX_FRAMES, MAX_PIXELS, MAX_SECONDS, MIN_SIDE
from cots.data.location import Location


class PrepareConfig(Config):
    """How the images and videos of the source are stored in shards."""

    size: PositiveInt = Field(
        default=80, description="Shorter side of stored images, pixels. Smaller images keep their size."
    )
    max_frames: PositiveInt = Field(
        default=MAX_FRAMES,
        description="Maximum number of frames stored of a video. They are the centers of as many equal segments (L), "
        "or all frames of a shorter video; evaluation and index average all stored frames.",
    )
    min_side: PositiveInt = Field(default=MIN_SIDE, description="Images with a shorter side are rejected, pixels.")
    max_pixels: PositiveInt = Field(
        default=MAX_PIXELS, description="Images with more pixels are rejected without decoding."
    )
    max_bytes: PositiveInt = Field(
        default=MAX_BYTES, description="Images and videos with more bytes are rejected without decoding."
    )
    max_seconds: PositiveFloat = Field(
        default=MAX_SECONDS, description="Videos that take longer to decode are rejected, seconds of one core."
    )
    max_caption_chars: PositiveInt = Field(
        default=MAX_CAPTION_CHARS, description="Captions with more characters are left out."
    )
    follow_symlinks: bool = Field(
        default=False,
        description="Also read files outside the data folder that symbolic links in it lead to. They are rejected "
        "otherwise, and so are the samples of a table, tar or text file there, because a data set from elsewhere could "
        "lead to any file. DVC makes such links with `cache.type symlink`, and the Hugging Face hub in its snapshots.",
        json_schema_extra={"since": "0.3.0"},
    )
    samples_per_shard: PositiveInt = Field(default=1000, description="Samples per tar file.")
    max_rejected: Fraction = Field(
        default=0.05,
        description="If a larger fraction of the source cannot be read, the stage fails. Captions may be missing.",
    )
    store: Location | None = Field(
        default=None,
        description="Folder or bucket for shards and tokens. null: the project's folder holds them. Otherwise it holds "
        "lists of the objects in the store, such as `s3://BUCKET/FOLDER` (docs/store.md).",
        json_schema_extra={"since": "0.3.0"},
    )

    def dump_limits(self) -> dict[str, Any]:
        """What the `Ingestor` of each sample needs, by its names."""
        return self.model_dump(exclude={"samples_per_shard", "max_rejected", "store"})


class PrepareSection(Sections):
    """A file with section `prepare`."""

    prepare: PrepareConfig = Field(
        default=PrepareConfig(), description="How the images and videos of the source are stored in shards."
    )
