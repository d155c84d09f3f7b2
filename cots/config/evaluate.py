"""Section `evaluate`: how retrieval is measured and shown."""

from pydantic import Field, PositiveInt

from cots.config.sections import Sections
from cots.config_base import Config, SplitName


class EvaluateConfig(Config):
    """How retrieval is measured and shown."""

    split: SplitName = Field(default="val", description="What is measured.")
    batch_size: PositiveInt = Field(default=128, description="Samples encoded at once.")
    folds: PositiveInt = Field(
        default=1,
        description="Parts whose mean scores stand beside the whole split's; 1: the whole alone. Parts of consecutive "
        'items; 5 for COCO\'s "1K".',
    )
    num_examples: PositiveInt = Field(default=8, description="Queries shown in the report, for each direction.")
    bootstrap_resamples: PositiveInt = Field(default=1000, description="Resamples for the confidence intervals.")
    seed: int = Field(default=0, description="Of the resamples and of the choice of examples.")


class EvaluateSection(Sections):
    """A file with section `evaluate`."""

    evaluate: EvaluateConfig = Field(default=EvaluateConfig(), description="How retrieval is measured and shown.")
