"""Section `dvae`: the discrete VAE whose codes are the visual tokens."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from cots.config.sections import Sections
from cots.config_base import CodebookSize, Config, Seed


class ScheduleConfig(Config):
    """A value that changes exponentially from start to end during the run."""

    start: PositiveFloat = Field(default=1.0, description="Value at the first step.")
    end: PositiveFloat = Field(default=0.0625, description="Value at the last step.")


class TrainedDvaeConfig(Config):
    """A discrete VAE trained on the project's own images."""

    kind: Literal["train"] = Field(default="train", description="train (our own) or openai (imported weights).")
    seed: Seed = Field(default=0, description="Seed of weights, crops and noise.")
    codebook_size: CodebookSize = Field(default=256, description="Number of visual tokens. Paper: 8,192 (M).")
    width: PositiveInt = Field(
        default=32, description="Channels at a quarter of the resolution; twice as many at an eighth."
    )
    blocks: PositiveInt = Field(default=1, description="Residual blocks at each resolution.")
    steps: PositiveInt = Field(default=600, description="Training steps.")
    batch_size: PositiveInt = Field(default=64, description="Crops per step.")
    learning_rate: PositiveFloat = Field(
        default=0.003, description="Peak learning rate, between a warm-up and a cosine decay."
    )
    temperature: ScheduleConfig = Field(default=ScheduleConfig(), description="Temperature of the Gumbel-softmax.")
    kl_weight: NonNegativeFloat = Field(
        default=0.00001,
        description="Weight of the KL divergence from the uniform prior; rises until half of the steps.",
    )
    checkpoint_every: PositiveInt = Field(default=200, description="Steps between checkpoints.")


class OpenAiDvaeConfig(Config):
    """OpenAI's discrete VAE, imported."""

    kind: Literal["openai"] = Field(default="openai", description="train (our own) or openai (imported weights).")
    seed: Seed = Field(default=0, description="Seed of the crops in the reconstruction examples.")
    batch_size: PositiveInt = Field(default=16, description="Crops per batch of these examples.")
    codebook_size: CodebookSize = Field(default=8192, description="Number of visual tokens.")
    path: Path = Field(
        description="Folder with encoder.pkl and decoder.pkl. Two .safetensors of these names, or one "
        "dvae.safetensors, will do too."
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(
        description="Digest of the weights: cat encoder.pkl decoder.pkl | sha256sum. If it changes, DVC runs the stage "
        "again."
    )


DvaeConfig = Annotated[TrainedDvaeConfig | OpenAiDvaeConfig, Field(discriminator="kind")]


class DvaeSection(Sections):
    """A file with section `dvae`."""

    dvae: DvaeConfig = Field(
        default=TrainedDvaeConfig(), description="The discrete VAE whose codes are the visual tokens."
    )
