"""Sections of the streams and of the dVAE."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cots.config.values import Codes, Positive, PositiveFloat, Section, Weight


class ImageStream(Section):
    """The image stream: a timm vision transformer."""

    name: str
    pretrained: bool
    size: Positive
    patch: Positive
    stem: Literal["linear", "convolutions"]
    pool: Literal["class", "mean"]
    options: dict[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def grid(self) -> int:
        """Patches along a side, and visual tokens along a side."""
        return self.size // self.patch

    @model_validator(mode="after")
    def _patches_fill_the_picture(self) -> Self:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not a multiple of patch {self.patch}")
        return self


class TextStream(Section):
    """The text stream: a transformers encoder."""

    name: str
    pretrained: bool
    pool: Literal["class", "mean"]
    max_tokens: Positive
    vocab_size: Positive
    options: dict[str, Any]


class Model(Section):
    """Both streams and their shared space."""

    dim: Positive
    image: ImageStream
    text: TextStream


class Anneal(Section):
    """A value that moves from start to end over the run."""

    start: PositiveFloat
    end: PositiveFloat


class TrainedDvae(Section):
    """A discrete VAE of our own, trained on the pictures at hand."""

    kind: Literal["train"]
    seed: int
    codes: Codes
    hidden: Positive
    blocks: Positive
    steps: Positive
    batch: Positive
    learning_rate: PositiveFloat
    temperature: Anneal
    kl_weight: Weight
    checkpoint_every: Positive


class OpenAiDvae(Section):
    """OpenAI's discrete VAE, imported."""

    kind: Literal["openai"]
    seed: int  # of the crops that show what it does
    batch: Positive  # of those crops
    codes: Codes
    path: Path
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # of the files of weights


Dvae = Annotated[TrainedDvae | OpenAiDvae, Field(discriminator="kind")]
