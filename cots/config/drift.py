"""Section `drift`: when queries and new samples are unlike what the deployed encoders learnt from."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from cots.config.sections import Sections
from cots.config_base import Config, Fraction


class DriftConfig(Config):
    """When queries and new samples are unlike what the deployed encoders learnt from."""

    seed: int = Field(
        default=0, description="Of samples and permutations. [drift.md](drift.md) tells what is compared with what."
    )
    max_queries: PositiveInt = Field(
        default=10_000, description="Queries read of the service's log, the newest, at most."
    )
    min_rows: Annotated[int, Field(ge=2)] = Field(
        default=100, description="Fewer texts or images on either side are not judged."
    )
    max_rows: Annotated[int, Field(ge=2)] = Field(
        default=500,
        description="Texts or images of a side whose vectors are compared, at most. Time and memory grow with its "
        "square.",
    )
    permutations: PositiveInt = Field(
        default=999, description="Of the two-sample test. Its p cannot fall below 1 / (permutations + 1)."
    )
    alpha: Fraction = Field(
        default=0.01,
        description="Significance level: vectors drifted where p is at most alpha and MMD² at least min_mmd2.",
    )
    min_mmd2: NonNegativeFloat = Field(
        default=0.02,
        description="Squared maximum mean discrepancy that matters (0 none, 2 most). With enough rows any difference "
        "is significant, not every one matters.",
    )
    max_outside: Fraction = Field(
        default=0.1, description="Fraction of lengths and sizes beyond what 98 % of the champion's data have."
    )
    max_oov: Fraction = Field(
        default=0.1, description="Fraction of words that the champion has not learnt, mean over texts."
    )
    max_blank: Fraction = Field(default=0.0, description="Fraction of texts that are blank.")
    max_shift: Fraction = Field(default=0.1, description="Change of the fraction of a split or a medium.")

    @model_validator(mode="after")
    def _alpha_can_be_reached(self) -> Self:
        if self.alpha * (self.permutations + 1) < 1:
            raise ValueError(f"alpha {self.alpha} cannot be reached by {self.permutations} permutations")
        return self


class DriftSection(Sections):
    """A file with section `drift`."""

    drift: DriftConfig = Field(
        default=DriftConfig(),
        description="When queries and new samples are unlike what the deployed encoders learnt from.",
    )
