"""Section `validate`: conditions that the data must meet."""

from pydantic import Field, PositiveInt

from cots.config.sections import Sections
from cots.config_base import Config, Fraction


class ValidateConfig(Config):
    """Conditions that the data must meet."""

    max_duplicates: Fraction = Field(
        default=0.05, description="Maximum fraction of samples with the pixels of an earlier one in the same split."
    )
    max_leakage: Fraction = Field(
        default=0.01, description="Maximum fraction of val and test samples whose pixels occur in train."
    )
    max_suspects: Fraction = Field(
        default=0.05,
        description="Maximum fraction of samples with a caption in suspects.csv that nobody has judged. "
        "`cots suspects` lists there the captions that the filter of a training run found unlikely.",
    )
    max_caption_words: PositiveInt = Field(default=80, description="Number of words above which a caption is long.")
    max_long_captions: Fraction = Field(
        default=0.02,
        description="Maximum fraction of samples with a long caption, which the tokenizer cuts.",
        json_schema_extra={"since": "0.3.0"},
    )
    sampled_shards: PositiveInt = Field(default=4, description="Shards that are opened and compared with the manifest.")


class ValidateSection(Sections):
    """A file with section `validate`."""

    validate_: ValidateConfig = Field(
        default=ValidateConfig(), alias="validate", description="Conditions that the data must meet."
    )
