"""Small backbones with random weights, for tests of other parts."""

from typing import Any

from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.hf_text import HfTextBackbone
from cots.models.vit import VitBackbone


def vision(
    *, size: int, patch: int = 8, name: str = "vit_tiny_patch16_224", fused: bool = False, **options: Any
) -> VitBackbone:
    """A vision transformer; `options` are timm's."""
    return VitBackbone(
        name=name, pretrained=False, size=size, patch=patch, stem="linear", options=options, fused_attention=fused
    )


def language(*, vocab: int, name: str = "bert", fused: bool = False, **options: Any) -> HfTextBackbone:
    """A text encoder whose padding is token 0; `options` are transformers'."""
    return HfTextBackbone(
        name=name, pretrained=False, vocab_size=vocab, pad_token=0, options=options, fused_attention=fused
    )


def vit(image_encoder: ImageEncoder) -> Any:
    """timm's model inside an image encoder."""
    assert isinstance(image_encoder.backbone, VitBackbone)
    return image_encoder.backbone.vit


def encoder(text_encoder: TextEncoder) -> Any:
    """transformers' model inside a text encoder."""
    assert isinstance(text_encoder.backbone, HfTextBackbone)
    return text_encoder.backbone.encoder
