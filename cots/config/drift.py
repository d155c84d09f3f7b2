"""Section `drift`: limits beyond which queries and new samples have drifted."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from cots.config.sections import Sections
from cots.config_base import Config, Fraction, Seed


class DriftConfig(Config):
    """Limits beyond which queries and new samples count as drifted."""

    seed: Seed = Field(
        default=0,
        description="Seed of subsamples and permutations. [drift.md](drift.md) explains what is compared with what.",
    )
    max_queries: PositiveInt = Field(
        default=10_000, description="Maximum number of queries read from the service's log, newest first."
    )
    min_rows: Annotated[int, Field(ge=2)] = Field(
        default=100, description="With fewer texts or images on either side, a check is skipped."
    )
    max_rows: Annotated[int, Field(ge=2)] = Field(
        default=500,
        description="Maximum number of embeddings per side of the two-sample test. A larger sample is subsampled; time "
        "and memory grow with the square.",
    )
    permutations: PositiveInt = Field(
        default=999, description="Permutations of the two-sample test. Its p cannot fall below 1 / (permutations + 1)."
    )
    alpha: Fraction = Field(
        default=0.01,
        description="Significance level. Embeddings have drifted if p is at most alpha and MMD² is at least min_mmd2.",
    )
    min_mmd2: NonNegativeFloat = Field(
        default=0.02,
        description="Smallest squared maximum mean discrepancy (0 to 2) that counts as drift. With enough rows even a "
        "negligible difference is significant.",
    )
    max_outside: Fraction = Field(
        default=0.1, description="Maximum fraction of lengths and sizes outside the middle 98 % of the champion's data."
    )
    max_oov: Fraction = Field(
        default=0.1, description="Maximum fraction of words that the champion was not trained on, mean over texts."
    )
    max_blank: Fraction = Field(default=0.0, description="Maximum fraction of blank texts.")
    max_shift: Fraction = Field(default=0.1, description="Maximum change in the fraction of a split or media type.")

    @model_validator(mode="after")
    def _check_alpha(self) -> Self:
        if self.alpha * (self.permutations + 1) < 1:
            raise ValueError(f"alpha {self.alpha} cannot be reached by {self.permutations} permutations")
        return self


class DriftSection(Sections):
    """A file with section `drift`."""

    drift: DriftConfig = Field(
        default=DriftConfig(),
        description="Limits beyond which queries and new samples count as drifted.",
    )
