"""A dual encoder from its configuration."""

from pathlib import Path

from cots.config.model import ModelConfig
from cots.data.tokenizer import load_tokenizer
from cots.errors import BadInput
from cots.models.dual_encoder import DualEncoder


def build_model(model: ModelConfig, tokenizer: Path) -> DualEncoder:
    """Both encoders as the section describes them, with random or pretrained weights."""
    loaded_tokenizer = load_tokenizer(model.text.name if model.text.pretrained else tokenizer)
    config = model.model_dump(include={"dim", "image", "text", "shared_blocks"})
    return DualEncoder.build(config, loaded_tokenizer)


def fit_to_section(model: DualEncoder, section: ModelConfig, *, name: str) -> DualEncoder:
    """The model that a run starts from, for images of the section's size.

    Args:
        model: to start from; name: of it, for messages.
        section: of the run.

    Raises:
        BadInput: its patches are of another size than those that the visual tokens belong to, or it has other shared
            blocks than the section asks for.
    """
    patch, shared = model.config["image"]["patch"], model.config.get("shared_blocks", 0)
    if patch != section.image.patch:
        wanted = section.image.patch
        raise BadInput(f"model.image.patch is {wanted}, and {name} has patches of {patch} pixels: give {patch}")
    if section.shared_blocks not in (0, shared):
        raise BadInput(
            f"model.shared_blocks is {section.shared_blocks}, and {name}, which the run starts from, has {shared}: "
            f"give {shared}, or set init_from to null"
        )
    return model.with_image_size(section.image.size)


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
    if shared := model.config.get("shared_blocks", 0):
        encoders += f", shared blocks: {shared}"
    return f"starts from {name}: {encoders}" if name else f"encoders: {encoders}"
