"""Section `validate`: what the data must satisfy to enter."""

from pydantic import Field, PositiveInt

from cots.config.sections import Sections
from cots.config_base import Config, Fraction


class ValidateConfig(Config):
    """What the data must satisfy to enter."""

    max_duplicates: Fraction = Field(
        default=0.05, description="Fraction of samples whose pixels occur before in the same split."
    )
    max_leakage: Fraction = Field(
        default=0.01, description="Fraction of val and test samples whose pixels occur in train."
    )
    max_suspects: Fraction = Field(
        default=0.05,
        description="Fraction of samples with a caption in suspects.csv. These are pairs that a trained filter "
        "distrusts, written by `cots suspects`.",
    )
    max_caption_words: PositiveInt = Field(default=80, description="Words of the longest caption.")
    sampled_shards: PositiveInt = Field(default=4, description="Shards opened and compared with the manifest.")


class ValidateSection(Sections):
    """A file with section `validate`."""

    validate_: ValidateConfig = Field(
        default=ValidateConfig(), alias="validate", description="What the data must satisfy to enter."
    )
