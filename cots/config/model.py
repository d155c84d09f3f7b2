"""Section `model`: both encoders and their shared embedding space. The JSON of a model folder has the same keys."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cots.config.sections import Sections
from cots.config_base import Config, Start


class ImageEncoderConfig(Config):
    """The image encoder: a timm vision transformer, or another `kind` of cots/models/dual_encoder.py."""

    kind: str = Field(
        default="timm",
        description="Backbone: timm, or another kind that cots/models/dual_encoder.py lists.",
        exclude_if=lambda kind: kind == "timm",  # older model folders and parameter files have no such key
    )
    name: str = Field(
        default="vit_tiny_patch16_224",
        description="Any timm vision transformer. Also `hf-hub:owner/name` or `local-dir:folder`. Paper: ViT-B/16 (M). "
        "See [encoders.md](encoders.md).",
    )
    pretrained: bool = Field(default=False, description="Start from the pretrained weights of `name`.")
    size: PositiveInt = Field(
        default=64,
        description="Side of the input image, pixels. Position embeddings of pretrained weights are interpolated.",
    )
    patch: PositiveInt = Field(default=8, description="Side of a patch, pixels; each patch has one visual token.")
    stem: Literal["linear", "convolutions"] = Field(
        default="convolutions",
        description="linear (the ViT's own) or convolutions (need fewer images to train). Paper: linear (L).",
    )
    pool: Literal["class", "mean", "attention"] | None = Field(
        default="mean",
        description="mean (of the patches), class (the class token), attention (SigLIP's) or null (as in the "
        "checkpoint). Paper: class (L).",
    )
    options: dict[str, Any] = Field(
        default={"embed_dim": 128, "depth": 2, "num_heads": 4},
        description="Arguments of the timm model. {} leaves the named architecture as it is.",
    )
    mean: tuple[float, float, float] | None = Field(
        default=None,
        description="Mean of each channel, subtracted from the pixels; null: the checkpoint's. Without a checkpoint "
        "null is CLIP's.",
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(
        default=None,
        description="Standard deviation of each channel, divides the pixels; null: the checkpoint's. Without a "
        "checkpoint null is CLIP's.",
    )

    @property
    def grid(self) -> int:
        """Patches along a side, and visual tokens along a side."""
        return self.size // self.patch

    @model_validator(mode="after")
    def _check_patch(self) -> Self:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not a multiple of patch {self.patch}")
        return self


class TextEncoderConfig(Config):
    """The text encoder: one of transformers, or another `kind` of cots/models/dual_encoder.py."""

    kind: str = Field(
        default="transformers",
        description="Backbone: transformers, or another kind that cots/models/text_model.py lists.",
        exclude_if=lambda kind: kind == "transformers",
    )
    name: str = Field(
        default="bert",
        description="A model type of transformers (from scratch), a hub name or a local folder. The latter two need "
        "`pretrained`. Paper: bert-base-uncased (L). See [encoders.md](encoders.md).",
    )
    pretrained: bool = Field(
        default=False, description="Start from the pretrained weights and the tokenizer of `name`."
    )
    pool: Literal["class", "mean", "last"] | None = Field(
        default="mean",
        description="mean (of the tokens), class ([CLS]), last (the last token) or null (as in the checkpoint). "
        "Paper: class (L).",
    )
    max_tokens: PositiveInt | None = Field(
        default=32,
        description="Longer texts are truncated; null: at the last position of the checkpoint. Paper: 80 (L).",
    )
    padding: Literal["longest", "max_length"] = Field(
        default="longest",
        description="longest (of a batch; padding is not read) or max_length (SigLIP's: texts are filled up to "
        "`max_tokens`, and padding is read).",
        exclude_if=lambda padding: padding == "longest",
    )
    vocab_size: PositiveInt = Field(
        default=5000,
        description="Vocabulary of the WordPiece tokenizer that is trained on the captions. Ignored if `pretrained`.",
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
        description="Arguments of the transformers configuration. {} leaves the named architecture as it is.",
    )


class ModelConfig(Config):
    """Both encoders and their shared embedding space."""

    init_from: Start | None = Field(
        default=None,
        description="A model to start from instead of these encoders. A folder of a trained model, a registered "
        "version (`models:/cots-index@champion`), or a checkpoint of CLIP or SigLIP: a folder, a file or a name of the "
        "hub. Of `image` only `size` and `patch` are then read, of `text` nothing. See [encoders.md](encoders.md).",
        json_schema_extra={"since": "0.3.0"},
    )
    dim: PositiveInt = Field(default=128, description="Dimension of the embeddings. Paper: 256 (L).")
    shared_blocks: NonNegativeInt = Field(
        default=0,
        description="Transformer blocks above both encoders, with the same weights for images and texts. Paper: none. "
        "See [shared-layers.md](shared-layers.md).",
        exclude_if=lambda blocks: blocks == 0,  # older model folders and parameter files have no such key
    )
    image: ImageEncoderConfig = Field(default=ImageEncoderConfig(), description="The image encoder.")
    text: TextEncoderConfig = Field(default=TextEncoderConfig(), description="The text encoder.")


class ModelSection(Sections):
    """A file with section `model`."""

    model: ModelConfig = Field(default=ModelConfig(), description="Both encoders and their shared embedding space.")
