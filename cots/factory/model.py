"""A dual encoder from its configuration."""

from pathlib import Path

from cots.config.model import ModelConfig
from cots.data.tokenizer import load_tokenizer
from cots.models.dual_encoder import DualEncoder


def build_model(model: ModelConfig, tokenizer: Path) -> DualEncoder:
    """Both encoders as the section describes them, with random or pretrained weights."""
    loaded_tokenizer = load_tokenizer(model.text.name if model.text.pretrained else tokenizer)
    config = {"dim": model.dim, "image": model.image.model_dump(), "text": model.text.model_dump()}
    return DualEncoder.build(config, loaded_tokenizer)
