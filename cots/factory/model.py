"""A dual encoder from its configuration."""

from pathlib import Path

from cots.config.model import ImageEncoderConfig, ModelConfig
from cots.data.tokenizer import load_tokenizer
from cots.errors import BadInput
from cots.models.dual_encoder import DualEncoder


def build_model(model: ModelConfig, tokenizer: Path) -> DualEncoder:
    """Both encoders as the section describes them, with random or pretrained weights."""
    loaded_tokenizer = load_tokenizer(model.text.name if model.text.pretrained else tokenizer)
    config = model.model_dump(include={"dim", "image", "text", "shared_blocks"})
    return DualEncoder.build(config, loaded_tokenizer)


def fit_to_images(model: DualEncoder, image: ImageEncoderConfig, *, name: str) -> DualEncoder:
    """The model for images of the section's size.

    Args:
        model: to start from; name: of it, for messages.
        image: the section.

    Raises:
        BadInput: its patches are of another size than those that the visual tokens belong to.
    """
    patch = model.config["image"]["patch"]
    if patch != image.patch:
        raise BadInput(f"model.image.patch is {image.patch}, and {name} has patches of {patch} pixels: give {patch}")
    return model.with_image_size(image.size)


def describe(model: DualEncoder, *, name: str | None) -> str:
    """One line on what a run starts from.

    Args:
        model: as built; name: of `init_from`, or None.
    """
    image, text = model.config["image"], model.config["text"]
    encoders = (
        f"{image['name']} ({image['size']} px, patches of {image['patch']}, pool {image['pool']}) and {text['name']} "
        f"(at most {text['max_tokens']} tokens, pool {text['pool']})"
    )
    return f"starts from {name}: {encoders}" if name else f"encoders: {encoders}"
