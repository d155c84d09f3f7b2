"""Section `gate`: conditions on which a new version replaces the champion."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from cots.config.sections import Sections
from cots.config_base import Config, Fraction, Seed
from cots.directions import DirectionName


class GateConfig(Config):
    """Conditions on which a new version replaces the champion."""

    must_improve: DirectionName | Literal["both"] | None = Field(
        default="both",
        description="What must improve: i2t, t2i, v2t, t2v, both (together) or null (nothing). The 95 % "
        "interval of the gain in mean recall must be above 0.",
    )
    non_inferiority_margin: NonNegativeFloat = Field(
        default=5.0,
        description="Percentage points of mean recall by which the interval of a direction may reach below 0. (D)",
    )
    min_test_items: PositiveInt = Field(
        default=30,
        description="Images or videos in the test split that two models are compared on. With fewer, intervals are too "
        "narrow to show anything, so the gate promotes no new encoders.",
    )
    max_champion_drop: NonNegativeFloat = Field(
        default=10.0,
        description="Percentage points of mean recall that the champion may lose on changed test queries. A larger "
        "loss suggests that the new captions are broken.",
    )
    min_recall: Fraction = Field(default=0.95, description="Minimum recall of the index relative to exact search.")
    max_latency_ms: PositiveFloat = Field(
        default=50.0, description="Maximum time of a query against the index, milliseconds."
    )
    bootstrap_resamples: PositiveInt = Field(default=1000, description="Resamples of the paired bootstrap.")
    seed: Seed = Field(default=0, description="Seed of the resamples.")


class GateSection(Sections):
    """A file with section `gate`."""

    gate: GateConfig = Field(
        default=GateConfig(), description="Conditions on which a new version replaces the champion."
    )
