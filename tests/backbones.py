"""Small backbones of random weights, for tests that are about something else."""

from typing import Any

from cots.models.language import TextBackbone
from cots.models.vision import VisionBackbone


def vision(
    *, size: int, patch: int = 8, name: str = "vit_tiny_patch16_224", fused: bool = False, **options: Any
) -> VisionBackbone:
    """A vision transformer; `options` are timm's."""
    return VisionBackbone(
        name=name, pretrained=False, size=size, patch=patch, stem="linear", options=options, fused_attention=fused
    )


def language(*, vocab: int, name: str = "bert", fused: bool = False, **options: Any) -> TextBackbone:
    """A text encoder whose padding is token 0; `options` are transformers'."""
    return TextBackbone(
        name=name, pretrained=False, vocab_size=vocab, pad_token=0, options=options, fused_attention=fused
    )
