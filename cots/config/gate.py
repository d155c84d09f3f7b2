"""Section `gate`: what a new version must show to take the champion's place."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from cots.config.sections import Sections
from cots.config_base import Config, Fraction
from cots.directions import DirectionName


class GateConfig(Config):
    """What a new version must show to take the champion's place."""

    must_improve: DirectionName | Literal["both"] | None = Field(
        default="both",
        description="i2t, t2i, v2t, t2v or both directions must gain; null: losing nothing is enough. The 95 % "
        "interval of the gain in mean recall lies above 0.",
    )
    non_inferiority_margin: NonNegativeFloat = Field(
        default=5.0,
        description="Points of mean recall that the interval of a direction may reach below 0. (D)",
    )
    max_champion_drop: NonNegativeFloat = Field(
        default=10.0,
        description="Points that the champion may lose on changed test queries. More since it was registered means "
        "that the new captions are broken.",
    )
    min_recall: Fraction = Field(default=0.95, description="Of the index against exact search.")
    max_latency_ms: PositiveFloat = Field(default=50.0, description="Milliseconds of a query against the index.")
    bootstrap_resamples: PositiveInt = Field(default=1000, description="Resamples of the paired bootstrap.")
    seed: int = Field(default=0, description="Of the resamples.")


class GateSection(Sections):
    """A file with section `gate`."""

    gate: GateConfig = Field(
        default=GateConfig(), description="What a new version must show to take the champion's place."
    )
