"""Section `tokenize`: random crops of each sample, drawn and tokenized once, before training."""

from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from cots.config.sections import Sections
from cots.config_base import Config, Seed


class TokenizeConfig(Config):
    """Random crops of each sample, drawn and tokenized once, before training."""

    seed: Seed = Field(default=0, description="Seed of the crops.")
    crops_per_image: PositiveInt = Field(
        default=8, description="Crops per sample. Training uses them in turn, one in each epoch."
    )
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(0.6, 1.0), description="Range of a crop's area relative to the image's. Paper: 0.2 to 1 (L)."
    )
    ratio: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(0.85, 1.18), description="Range of a crop's aspect ratio, width / height."
    )
    batch_size: PositiveInt = Field(
        default=256, description="Crops tokenized at once. Use 16 for OpenAI's dVAE at 112 pixels."
    )

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {self.scale} must be ascending and at most 1")
        if not self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {self.ratio} must be ascending")
        return self


class TokenizeSection(Sections):
    """A file with section `tokenize`."""

    tokenize: TokenizeConfig = Field(
        default=TokenizeConfig(), description="Random crops of each sample, drawn and tokenized once, before training."
    )
