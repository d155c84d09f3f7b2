"""Section `tokenize`: crops of each sample, drawn once and tokenized once."""

from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from cots.config.sections import Sections
from cots.config_base import Config


class TokenizeConfig(Config):
    """Crops of each sample, drawn once and tokenized once."""

    seed: int = Field(default=0, description="Of the crops.")
    crops_per_image: PositiveInt = Field(
        default=8, description="Crops of a sample. Training uses one in each epoch, in turn."
    )
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(0.6, 1.0), description="Range of a crop's fraction of the image's area. Paper: 0.2 to 1 (L)."
    )
    ratio: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(0.85, 1.18), description="Range of a crop's width divided by its height."
    )
    batch_size: PositiveInt = Field(
        default=256, description="Crops tokenized at once. 16 for OpenAI's dVAE at 112 pixels."
    )

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {self.scale} must rise and end at 1 at most")
        if not self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {self.ratio} must rise")
        return self


class TokenizeSection(Sections):
    """A file with section `tokenize`."""

    tokenize: TokenizeConfig = Field(
        default=TokenizeConfig(), description="Crops of each sample, drawn once and tokenized once."
    )
