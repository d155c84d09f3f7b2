"""Reads CLIP and SigLIP as open_clip stores them, and CLIP as OpenAI does."""

import math
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import GELUTanh
from tokenizers import Regex, normalizers
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cots.data.tokenizer import load_tokenizer
from cots.errors import BadInput
from cots.models.two_tower.checkpoint import Checkpoint, assemble, image_tower, text_tower
from cots.models.two_tower.renaming import Weights, strip_prefix, to_timm, to_transformers
from cots.models.two_tower.state_dict import read_state_dict

CLIP_TOKENIZER = "openai/clip-vit-base-patch32"  # OpenAI's files hold no vocabulary
TEXT_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")  # of transformers' text tower
HEAD_WIDTH = 64  # of CLIP's attention heads, unless the configuration says otherwise
# Number of heads by width for ViT-H, ViT-g and ViT-bigG, if there is no configuration.
HEADS = {1280: 16, 1408: 16, 1664: 16}
TEXT_DEFAULTS = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}  # open_clip's


def read_open_clip(name: str, file: Path, settings: dict[str, Any], folder: Path) -> Checkpoint:
    """Read weights in open_clip's format, which is OpenAI's.

    Args:
        name: for messages.
        file: file of weights.
        settings: content of open_clip_config.json; {} stands for CLIP with sizes from the shapes of its weights.
        folder: holds the tokenizer; without one, CLIP's is used.

    Raises:
        BadInput: a tower is of another architecture.
    """
    weights = read_state_dict(name, file)
    text_weights = strip_prefix(weights, "text.") or weights
    model = settings.get("model_cfg", {})
    vision, text = model.get("vision_cfg", {}), TEXT_DEFAULTS | model.get("text_cfg", {})
    siglip = bool(text.get("no_causal_mask"))
    if "ln_final.weight" not in text_weights or not {"visual.conv1.weight", "visual.trunk.pos_embed"} & weights.keys():
        raise BadInput(f"{name} is no CLIP with a vision transformer: its towers are of another architecture")
    if siglip != ("timm_model_name" in vision):
        raise BadInput(f"{name} is neither CLIP nor SigLIP: it mixes their towers")
    if strip_prefix(weights, "visual.head."):
        raise BadInput(f"{name} projects images after pooling, by a head of its own, which SigLIP lacks")
    activation = "quick_gelu" if model.get("quick_gelu", "input_resolution" in weights) else "gelu"
    if siglip:
        image_weights = strip_prefix(weights, "visual.trunk.")
        heads, image_activation = timm_heads_and_activation(vision["timm_model_name"])
    else:
        image_weights = to_timm(to_transformers(strip_prefix(weights, "visual.")))
        heads, image_activation = num_clip_heads(image_weights, vision), activation
    image_config = open_clip_image_tower(
        image_weights,
        settings.get("preprocess_cfg", {}),
        siglip=siglip,
        heads=heads,
        activation=image_activation,
    )
    tokenizer = load_tokenizer(str(folder) if has_tokenizer(folder) else CLIP_TOKENIZER)
    if text.get("tokenizer_kwargs", {}).get("clean") == "canonicalize":
        canonicalize(tokenizer)
    options = text if settings else text | text_sizes(text_weights)
    projection = read_text_projection(name, text_weights)
    return assemble(
        image_config,
        text_tower(
            "siglip_text_model" if siglip else "clip_text_model",
            tokenizer,
            options=open_clip_text_options(options, text_weights, activation),
            dim=projection.shape[0],
        ),
        image=image_weights,
        text={name: w for name, w in to_transformers(text_weights).items() if name.startswith(TEXT_PARTS)},
        image_projection=None if siglip else weights["visual.proj"].T,
        text_projection=projection,
        text_bias=text_weights.get("text_projection.bias"),
        scales=weights,
        tokenizer=tokenizer,
    )


def open_clip_image_tower(
    weights: Weights, preprocess: dict[str, Any], *, siglip: bool, heads: int, activation: str
) -> dict[str, Any]:
    """Section `image` of a model's config, with sizes from the shapes of its weights, which have timm's names."""
    patch, width = weights["patch_embed.proj.weight"].shape[-1], weights["pos_embed"].shape[-1]
    return image_tower(
        siglip=siglip,
        size=math.isqrt(weights["pos_embed"].shape[1]) * patch,
        patch=patch,
        width=width,
        depth=len({key.split(".")[1] for key in weights if key.startswith("blocks.")}),
        heads=heads,
        mlp_ratio=weights["blocks.0.mlp.fc1.bias"].shape[0] / width,
        activation=activation,
        mean=preprocess.get("mean"),
        std=preprocess.get("std"),
    )


def num_clip_heads(weights: Weights, vision: dict[str, Any]) -> int:
    """Number of heads of CLIP's image tower: from its configuration, or that of the published models of its width."""
    width: int = weights["pos_embed"].shape[-1]
    return width // vision["head_width"] if "head_width" in vision else HEADS.get(width, width // HEAD_WIDTH)


def timm_heads_and_activation(name: str) -> tuple[int, str]:
    """Number of heads and activation of timm's image tower of a name."""
    with torch.device("meta"):
        block = timm.create_model(name, num_classes=0).blocks[0]
    tanh = isinstance(block.mlp.act, GELUTanh)
    return block.attn.num_heads, "gelu_pytorch_tanh" if tanh else "gelu"


def open_clip_text_options(text: dict[str, Any], weights: Weights, activation: str) -> dict[str, Any]:
    """Options of transformers' text tower, from open_clip's `text_cfg`."""
    tanh = text.get("act_kwargs", {}).get("approximate") == "tanh"
    return {
        "vocab_size": text["vocab_size"],
        "hidden_size": text["width"],
        "intermediate_size": weights["transformer.resblocks.0.mlp.c_fc.bias"].shape[0],
        "num_hidden_layers": text["layers"],
        "num_attention_heads": text["heads"],
        "max_position_embeddings": text["context_length"],
        "hidden_act": "gelu_pytorch_tanh" if tanh else activation,
        "layer_norm_eps": text.get("norm_kwargs", {}).get("eps", 1e-5),
    }


def text_sizes(weights: Weights) -> dict[str, int]:
    """`text_cfg` of CLIP's text tower, from the shapes of its weights."""
    width = weights["ln_final.weight"].shape[0]
    return {
        "context_length": weights["positional_embedding"].shape[0],
        "vocab_size": weights["token_embedding.weight"].shape[0],
        "width": width,
        "heads": max(width // HEAD_WIDTH, 1),
        "layers": len({key.split(".")[2] for key in weights if key.startswith("transformer.resblocks.")}),
    }


def read_text_projection(name: str, weights: Weights) -> Tensor:
    """The projection (D, W) of open_clip's text tower, which CLIP stores transposed.

    Raises:
        BadInput: there is none.
    """
    if "text_projection" in weights:
        return weights["text_projection"].T
    if "text_projection.weight" in weights:
        return weights["text_projection.weight"]
    raise BadInput(f"{name} has no projection of its texts")


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder holds a tokenizer in a format of transformers."""
    return any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json", "tokenizer.model"))


def canonicalize(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a tokenizer lower-case texts and drop punctuation, as for SigLIP's training; it is changed in place.

    open_clip also repairs wrongly decoded characters and HTML entities first; texts that have these differ.
    """
    backend = tokenizer.backend_tokenizer
    underscores = normalizers.Replace("_", " ")
    punctuation = normalizers.Replace(Regex(r"[!-/:-@\[-`{-~‘’“”]"), "")
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    steps = [underscores, normalizers.Lowercase(), punctuation, spaces, normalizers.Strip()]
    backend.normalizer = normalizers.Sequence([*steps, backend.normalizer] if backend.normalizer else steps)
