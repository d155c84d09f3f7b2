"""Renames weights: from the names of OpenAI and open_clip to those of transformers, and from there to timm's."""

import re

import torch
from torch import Tensor

Weights = dict[str, Tensor]

# Parts of OpenAI's and open_clip's names, and those of transformers, in the order in which they are replaced.
FROM_OPEN_CLIP = {
    "transformer.resblocks.": "encoder.layers.",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".attn.": ".self_attn.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    "class_embedding": "embeddings.class_embedding",
    "token_embedding.": "embeddings.token_embedding.",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.": "embeddings.patch_embedding.",
    "ln_pre.": "pre_layrnorm.",
    "ln_post.": "post_layernorm.",
    "ln_final.": "final_layer_norm.",
}
# Parts of transformers' names, and those of timm, likewise.
TO_TIMM = {
    "encoder.layers.": "blocks.",
    ".layer_norm1.": ".norm1.",
    ".layer_norm2.": ".norm2.",
    ".self_attn.out_proj.": ".attn.proj.",
    ".self_attn.": ".attn.",
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding.weight": "pos_embed",
    "embeddings.patch_embedding.": "patch_embed.proj.",
    "pre_layrnorm.": "norm_pre.",
    "post_layernorm.": "norm.",
    "head.probe": "attn_pool.latent",
    "head.attention.out_proj.": "attn_pool.proj.",
    "head.layernorm.": "attn_pool.norm.",
    "head.mlp.": "attn_pool.mlp.",
}


def strip_prefix(weights: Weights, prefix: str) -> Weights:
    """The weights whose names begin with a prefix; the prefix is removed."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def to_transformers(weights: Weights) -> Weights:
    """Rename the weights of a tower from the names of OpenAI and open_clip to those of transformers."""
    renamed: Weights = {}
    for key, value in weights.items():
        name = replace_all(key, FROM_OPEN_CLIP)
        if joined := re.fullmatch(r"(.*\.self_attn\.)in_proj_(weight|bias)", name):
            for part, chunk in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{joined[1]}{part}_proj.{joined[2]}"] = chunk
        elif name != "proj":
            renamed[name] = value
    return renamed


def to_timm(weights: Weights) -> Weights:
    """Rename the weights of an image tower from the names of transformers to those of timm."""
    renamed: Weights = {}
    for key, value in weights.items():
        if split := re.fullmatch(r"(.*\.self_attn\.)q_proj\.(weight|bias)", key):
            parts = [weights[f"{split[1]}{part}_proj.{split[2]}"] for part in "qkv"]
            renamed[replace_all(f"{split[1]}qkv.{split[2]}", TO_TIMM)] = torch.cat(parts)
        elif joined := re.fullmatch(r"head\.attention\.in_proj_(weight|bias)", key):
            query, *key_value = value.chunk(3)
            renamed[f"attn_pool.q.{joined[1]}"] = query
            renamed[f"attn_pool.kv.{joined[1]}"] = torch.cat(key_value)
        elif not re.search(r"\.self_attn\.[kv]_proj\.", key):
            renamed[replace_all(key, TO_TIMM)] = value
    for name in ("cls_token", "pos_embed"):  # timm's have leading axes of length 1
        if name in renamed:
            renamed[name] = renamed[name].reshape(1, -1, renamed[name].shape[-1])
    return renamed


def replace_all(text: str, replacements: dict[str, str]) -> str:
    """Replace each key by its value, one after the other."""
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text
