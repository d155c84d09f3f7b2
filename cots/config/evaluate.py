"""Section `evaluate`: how retrieval is evaluated and shown."""

from typing import Annotated

from pydantic import Field, PositiveInt

from cots.config.sections import Sections
from cots.config_base import Config, Seed, SplitName


class ClassificationConfig(Config):
    """Zero-shot classification by prompts."""

    column: str | None = Field(
        default=None,
        description="Column of the source with the class of each image or video; null: no classification. Its distinct "
        "values in the data set are the candidates; samples without one are left out.",
        json_schema_extra={"since": "0.3.0"},
    )
    templates: Annotated[tuple[Annotated[str, Field(pattern=r"\{\}")], ...], Field(min_length=1)] = Field(
        default=("a photo of a {}.",),
        description="Prompts in which {} stands for the class. A class is the mean of the embeddings of its prompts.",
        json_schema_extra={"since": "0.3.0"},
    )


class SlicesConfig(Config):
    """Recall by slices of the queries."""

    columns: tuple[str, ...] = Field(
        default=(),
        description="Columns of the source by whose values recall is shown, beside the lengths of captions.",
        json_schema_extra={"since": "0.3.0"},
    )
    max_values: PositiveInt = Field(
        default=8,
        description="Values of each column that are shown, the most frequent ones.",
        json_schema_extra={"since": "0.3.0"},
    )


class EvaluateConfig(Config):
    """How retrieval is evaluated and shown."""

    split: SplitName = Field(default="val", description="Split to evaluate on.")
    batch_size: PositiveInt = Field(default=128, description="Samples encoded at once.")
    folds: PositiveInt = Field(
        default=1,
        description="Folds whose mean scores are reported beside those of the whole split; 1: none. Folds consist of "
        'consecutive items; 5 gives COCO\'s "1K".',
    )
    num_examples: PositiveInt = Field(default=8, description="Example queries in the report, for each direction.")
    bootstrap_resamples: PositiveInt = Field(
        default=1000, description="Bootstrap resamples for the confidence intervals."
    )
    seed: Seed = Field(default=0, description="Seed of the resamples and of the choice of examples.")
    classification: ClassificationConfig = Field(
        default=ClassificationConfig(), description="Zero-shot classification by prompts, beside retrieval."
    )
    slices: SlicesConfig = Field(default=SlicesConfig(), description="Recall by slices of the queries.")


class EvaluateSection(Sections):
    """A file with section `evaluate`."""

    evaluate: EvaluateConfig = Field(default=EvaluateConfig(), description="How retrieval is evaluated and shown.")
