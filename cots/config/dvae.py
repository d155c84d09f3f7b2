"""Section `dvae`: the discrete VAE whose codes are the visual tokens."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from cots.config.sections import Sections
from cots.config_base import CodebookSize, Config


class ScheduleConfig(Config):
    """A value that moves exponentially from start to end over the run."""

    start: PositiveFloat = Field(default=1.0, description="At the first step.")
    end: PositiveFloat = Field(default=0.0625, description="At the last step.")


class TrainedDvaeConfig(Config):
    """A discrete VAE of our own, trained on the images at hand."""

    kind: Literal["train"] = Field(default="train", description="train our own, or openai: imported weights.")
    seed: int = Field(default=0, description="Of weights, crops and noise.")
    codebook_size: CodebookSize = Field(default=256, description="Number of visual tokens. Paper: 8,192 (M).")
    width: PositiveInt = Field(
        default=32, description="Channels at a quarter of the resolution; twice as many at an eighth."
    )
    blocks: PositiveInt = Field(default=1, description="Residual blocks at each resolution.")
    steps: PositiveInt = Field(default=600, description="Training steps.")
    batch_size: PositiveInt = Field(default=64, description="Crops in a step.")
    learning_rate: PositiveFloat = Field(default=0.003, description="Peak; a warm-up and half a cosine around it.")
    temperature: ScheduleConfig = Field(
        default=ScheduleConfig(), description="Of the Gumbel-softmax, from start to end."
    )
    kl_weight: NonNegativeFloat = Field(
        default=0.00001, description="Pull towards the uniform prior; reached half way, then kept."
    )
    checkpoint_every: PositiveInt = Field(default=200, description="Steps between checkpoints.")


class OpenAiDvaeConfig(Config):
    """OpenAI's discrete VAE, imported."""

    kind: Literal["openai"] = Field(default="openai", description="train our own, or openai: imported weights.")
    seed: int = Field(default=0, description="Of the crops that show what it does.")
    batch_size: PositiveInt = Field(default=16, description="Of those crops.")
    codebook_size: CodebookSize = Field(default=8192, description="Number of visual tokens.")
    path: Path = Field(
        description="The folder with encoder.pkl and decoder.pkl. Or the same two as .safetensors, or one "
        "dvae.safetensors."
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(
        description="Yours: cat encoder.pkl decoder.pkl | sha256sum. It is how DVC sees that the weights changed."
    )


DvaeConfig = Annotated[TrainedDvaeConfig | OpenAiDvaeConfig, Field(discriminator="kind")]


class DvaeSection(Sections):
    """A file with section `dvae`."""

    dvae: DvaeConfig = Field(
        default=TrainedDvaeConfig(), description="The discrete VAE whose codes are the visual tokens."
    )
