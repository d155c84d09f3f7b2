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
        description="The fine-tuned model that is deployed: image-text or video-text. Validation fails where train or "
        "`evaluate.split` has nothing of its kind.",
    )
    splits: tuple[SplitName, ...] = Field(
        default=("train", "val"), description="Splits whose images and videos are searched."
    )
    factory: str = Field(
        default="auto",
        description="auto: by size and recall; or a string of faiss's index_factory. auto is exact while a query reads "
        "at most 32 MiB of vectors, above that a graph (HNSW) with the least effort that reaches `target_recall` "
        "([performance.md](performance.md)).",
    )
    target_recall: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.95,
        description="Fraction of exact search's ten nearest that auto must find. Measured on captions, reported as "
        "measured on others.",
    )
    max_memory_gb: PositiveFloat | None = Field(
        default=None,
        description="Memory that auto may take for each index, gigabytes; null: no limit. Vectors are kept in half "
        "precision, in bytes if that does not fit.",
    )
    thumbnail_size: PositiveInt = Field(default=128, description="Longer side of the thumbnails of all frames, pixels.")
    recall_queries: PositiveInt = Field(default=500, description="Captions that measure recall against exact search.")


class IndexSection(Sections):
    """A file with section `index`."""

    index: IndexConfig = Field(default=IndexConfig(), description="The deployed search index.")
