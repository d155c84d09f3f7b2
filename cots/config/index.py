"""Section `index`: the deployed search index."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from cots.config.sections import Sections
from cots.config_base import Config, SplitName
from cots.directions import Target


class IndexConfig(Config):
    """The deployed search index."""

    target: Target = Field(
        default="image-text",
        description="Fine-tuned model to deploy: image-text or video-text. Validation fails if train or "
        "`evaluate.split` has no images or videos, respectively.",
    )
    splits: tuple[SplitName, ...] = Field(
        default=("train", "val"),
        description="Splits whose images and videos are indexed. Those without captions belong to no split and are "
        "always indexed.",
    )
    factory: str = Field(
        default="auto",
        description="auto (by size and recall), or a string of FAISS's index_factory. auto searches exactly while a "
        "query reads at most 32 MiB of vectors; up to 2 GiB (2 million of 256) it takes a graph (HNSW), beyond that "
        "inverted lists, built in blocks and searched on the disk ([scale.md](scale.md)), with the smallest efSearch "
        "or nprobe that reaches `target_recall` ([performance.md](performance.md)).",
    )
    target_recall: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.95,
        description="Fraction of the ten exact nearest neighbours that auto must find. auto measures it on some "
        "captions; index.json reports it for others.",
    )
    max_memory_gb: PositiveFloat | None = Field(
        default=None,
        description="Maximum memory of each index that auto builds, gigabytes; null: no limit. A graph stores vectors "
        "in half precision, or in 8 bits if that does not fit; if that does not fit either, auto takes inverted lists "
        "on the disk, of which only the centroids count.",
    )
    thumbnail_size: PositiveInt = Field(default=128, description="Longer side of the thumbnails of all frames, pixels.")
    recall_queries: PositiveInt = Field(
        default=500, description="Captions on which recall relative to exact search is measured."
    )


class IndexSection(Sections):
    """A file with section `index`."""

    index: IndexConfig = Field(default=IndexConfig(), description="The deployed search index.")
