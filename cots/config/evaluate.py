"""Section `evaluate`: how retrieval is evaluated and shown."""

from pydantic import Field, PositiveInt

from cots.config.sections import Sections
from cots.config_base import Config, Seed, SplitName


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


class EvaluateSection(Sections):
    """A file with section `evaluate`."""

    evaluate: EvaluateConfig = Field(default=EvaluateConfig(), description="How retrieval is evaluated and shown.")
