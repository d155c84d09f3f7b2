"""A two-tower checkpoint in this project's form."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cots.models.dual_encoder import UNTRAINED
from cots.models.two_tower.renaming import Weights


class Checkpoint(NamedTuple):
    """A two-tower checkpoint in this project's form."""

    config: dict[str, Any]  # of a `DualEncoder`
    weights: Weights  # of both encoders, without the mask token, which no checkpoint has
    tokenizer: PreTrainedTokenizerBase


def image_tower(
    *,
    siglip: bool,
    size: int,
    patch: int,
    width: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    activation: str,
    mean: list[float] | None,
    std: list[float] | None,
) -> dict[str, Any]:
    """Section `image` of a model's config."""
    half = (0.5, 0.5, 0.5)
    return {
        "kind": "timm",
        "name": "vit_base_patch16_siglip_224" if siglip else "vit_base_patch16_clip_224",
        "pretrained": False,
        "size": size,
        "patch": patch,
        "stem": "linear",
        "pool": "attention" if siglip else "class",
        "options": {
            "embed_dim": width,
            "depth": depth,
            "num_heads": heads,
            "mlp_ratio": mlp_ratio,
            "act_layer": {"gelu_pytorch_tanh": "gelu_tanh"}.get(activation, activation),
        },
        "mean": tuple(mean or (half if siglip else UNTRAINED["mean"])),
        "std": tuple(std or (half if siglip else UNTRAINED["std"])),
    }


def text_tower(kind: str, tokenizer: PreTrainedTokenizerBase, *, options: dict[str, Any], dim: int) -> dict[str, Any]:
    """Sections `text` and `dim` of a model's config."""
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {
        "dim": dim,
        "text": {
            "kind": "transformers",
            "name": kind,
            "pretrained": False,
            "pool": "last",
            "max_tokens": options["max_position_embeddings"],
            "padding": "max_length" if kind == "siglip_text_model" else "longest",
            "options": options | special,
        },
    }


def assemble(
    image_config: dict[str, Any],
    text_config: dict[str, Any],
    *,
    image: Weights,
    text: Weights,
    image_projection: Tensor | None,
    text_projection: Tensor | None,
    scales: Weights,
    tokenizer: PreTrainedTokenizerBase,
    text_bias: Tensor | None = None,
) -> Checkpoint:
    """Join both towers to a checkpoint.

    Args:
        image_config: result of `image_tower`.
        text_config: result of `text_tower`.
        image: weights of the image tower, with timm's names.
        text: weights of the text tower, with transformers' names.
        image_projection: (D, W); None if the image tower's width is D and it needs none.
        text_projection: (D, W); None if it is the `head` among the weights of the text tower.
        scales: weights that hold `logit_scale` and, for SigLIP, `logit_bias`.
        tokenizer: the text tower's tokenizer.
        text_bias: (D,) bias of the text projection, if it has one.
    """
    dim = text_config["dim"]
    if text_projection is None:
        text_projection, text_bias = text["head.weight"], text["head.bias"]
    projections = {
        "image.projection.weight": torch.eye(dim) if image_projection is None else image_projection,
        "image.projection.bias": torch.zeros(dim),
        "text.projection.weight": text_projection,
        "text.projection.bias": torch.zeros(dim) if text_bias is None else text_bias,
    }
    weights = {f"image.backbone.vit.{key}": value for key, value in image.items()}
    weights |= {f"text.backbone.encoder.{key}": value for key, value in text.items() if not key.startswith("head.")}
    config = text_config | {"image": image_config, "temperature": math.exp(-scales["logit_scale"].item())}
    if "logit_bias" in scales:
        config["bias"] = scales["logit_bias"].item()
    return Checkpoint(config, {key: value.contiguous() for key, value in (weights | projections).items()}, tokenizer)
