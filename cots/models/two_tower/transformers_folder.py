"""Reads CLIP and SigLIP as transformers stores them."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from cots.data.tokenizer import load_tokenizer
from cots.errors import BadInput
from cots.models.hf_files import quiet_transformers
from cots.models.two_tower.checkpoint import Checkpoint, assemble, image_tower, text_tower
from cots.models.two_tower.renaming import Weights, strip_prefix, to_timm

NORM_EPS = {"clip": 1e-5, "siglip": 1e-6}
TEXT_OPTIONS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "attention_dropout"),
)


def read_transformers(name: str, folder: Path) -> Checkpoint:
    """Read a folder of transformers' `CLIPModel` or `SiglipModel`.

    Raises:
        BadInput: it holds another model, or its weights are not complete.
    """
    with quiet_transformers():
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    kind = config.model_type
    if kind not in ("clip", "siglip"):
        raise BadInput(f"{name} is a model of type {kind}, neither clip nor siglip")
    with quiet_transformers():
        model, loading = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if missing := sorted(loading["missing_keys"]):
        raise BadInput(f"{name} lacks {len(missing)} weights, such as {missing[0]}")
    if unknown := sorted(key for key in loading["unexpected_keys"] if not key.endswith("position_ids")):
        raise BadInput(f"{name} has {len(unknown)} unknown weights, such as {unknown[0]}")
    weights: Weights = model.state_dict()
    vision, text = config.vision_config, config.text_config
    if vision.layer_norm_eps != NORM_EPS[kind]:
        raise BadInput(f"{name} has norms with an epsilon of {vision.layer_norm_eps}, not {kind}'s {NORM_EPS[kind]}")
    processor = read_image_processor(folder)
    image_config = image_tower(
        siglip=kind == "siglip",
        size=vision.image_size,
        patch=vision.patch_size,
        width=vision.hidden_size,
        depth=vision.num_hidden_layers,
        heads=vision.num_attention_heads,
        mlp_ratio=vision.intermediate_size / vision.hidden_size,
        activation=vision.hidden_act,
        mean=processor.get("image_mean"),
        std=processor.get("image_std"),
    )
    tokenizer = load_tokenizer(str(folder))
    text_config = text_tower(
        f"{kind}_text_model",
        tokenizer,
        options={key: getattr(text, key) for key in TEXT_OPTIONS if hasattr(text, key)},
        dim=weights["text_model.head.weight"].shape[0] if kind == "siglip" else config.projection_dim,
    )
    return assemble(
        image_config,
        text_config,
        image=to_timm(strip_prefix(weights, "vision_model.")),
        text=strip_prefix(weights, "text_model."),
        image_projection=weights.get("visual_projection.weight"),
        text_projection=weights.get("text_projection.weight"),
        scales=weights,
        tokenizer=tokenizer,
    )


def read_image_processor(folder: Path) -> dict[str, Any]:
    """Read the settings of the image processor from whichever of its files a folder of transformers has."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf8"))
            settings: dict[str, Any] = content.get("image_processor", content)
            return settings
    return {}
