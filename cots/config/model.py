"""Section `model`: both encoders and their shared space. Its keys are those of a model folder's JSON too."""

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from cots.config.sections import Sections
from cots.config.values import Config


class ImageEncoderConfig(Config):
    """The image encoder: a timm vision transformer, or another `kind` of cots/models/dual_encoder.py."""

    kind: str = Field(
        default="timm",
        description="The kind of backbone. timm alone, until the table in cots/models/dual_encoder.py has another.",
        exclude_if=lambda kind: kind == "timm",  # as in model folders and parameter files of before
    )
    name: str = Field(
        default="vit_tiny_patch16_224",
        description="Any timm vision transformer. Also `hf-hub:owner/name` or `local-dir:folder`. Paper: ViT-B/16 (M). "
        "See [encoders.md](encoders.md).",
    )
    pretrained: bool = Field(default=False, description="Start from the weights that the name stands for.")
    size: PositiveInt = Field(
        default=64, description="Side of the input, pixels. Position embeddings of pretrained weights are interpolated."
    )
    patch: PositiveInt = Field(default=8, description="Side of a patch, pixels; one visual token for each.")
    stem: Literal["linear", "convolutions"] = Field(
        default="convolutions",
        description="linear, the ViT's own, or convolutions, which learn from fewer images. Paper: linear (L).",
    )
    pool: Literal["class", "mean"] = Field(
        default="mean", description="mean of the patches, or class: the class token. Paper: class (L)."
    )
    options: dict[str, Any] = Field(
        default={"embed_dim": 128, "depth": 2, "num_heads": 4},
        description="For timm's model. {} leaves the named architecture as it is.",
    )
    mean: tuple[float, float, float] = Field(
        default=(0.48145466, 0.4578275, 0.40821073),
        description="Subtracted from the pixels, by channel; here CLIP's. Used as it stands, whatever pretrained "
        "weights were trained with.",
    )
    std: tuple[float, float, float] = Field(
        default=(0.26862954, 0.26130258, 0.27577711), description="Divides the pixels, by channel; here CLIP's."
    )

    @property
    def grid(self) -> int:
        """Patches along a side, and visual tokens along a side."""
        return self.size // self.patch

    @model_validator(mode="after")
    def _patches_fill_the_image(self) -> Self:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not a multiple of patch {self.patch}")
        return self


class TextEncoderConfig(Config):
    """The text encoder: one of transformers, or another `kind` of cots/models/dual_encoder.py."""

    kind: str = Field(
        default="transformers",
        description="The kind of backbone. transformers alone, until another is registered.",
        exclude_if=lambda kind: kind == "transformers",
    )
    name: str = Field(
        default="bert",
        description="A model type of transformers (from scratch), a hub name or a local folder. The latter two with "
        "`pretrained`. Paper: bert-base-uncased (L). See [encoders.md](encoders.md).",
    )
    pretrained: bool = Field(
        default=False, description="Start from the weights and tokenizer that the name stands for."
    )
    pool: Literal["class", "mean"] = Field(
        default="mean", description="mean of the tokens, or class: [CLS]. Paper: class (L)."
    )
    max_tokens: PositiveInt = Field(
        default=32,
        description="Longer texts are cut. At most what the model has positions for. Paper: 80 (L).",
    )
    vocab_size: PositiveInt = Field(
        default=5000,
        description="Of the WordPiece tokenizer trained on the captions. No effect beside a pretrained tokenizer.",
    )
    options: dict[str, Any] = Field(
        default={
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        description="For the model's configuration in transformers. {} leaves the named architecture as it is.",
    )


class ModelConfig(Config):
    """Both encoders and their shared space."""

    dim: PositiveInt = Field(default=128, description="Dimension of the shared space. Paper: 256 (L).")
    image: ImageEncoderConfig = Field(default=ImageEncoderConfig(), description="The image encoder.")
    text: TextEncoderConfig = Field(default=TextEncoderConfig(), description="The text encoder.")


class ModelSection(Sections):
    """A file with section `model`."""

    model: ModelConfig = Field(default=ModelConfig(), description="Both encoders and their shared space.")
