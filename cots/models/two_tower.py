"""Loads two-tower checkpoints, CLIP and SigLIP, as OpenAI, open_clip and transformers store them.

Weights are renamed twice at most: from OpenAI's and open_clip's names to those of transformers, and the image tower's
from there to timm's, because the image backbone is timm's vision transformer. The text tower is that of transformers.
"""

import json
import math
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import GELUTanh
from tokenizers import Regex, normalizers
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerBase

from cots.data.tokenizer import load_tokenizer
from cots.devices import default_device
from cots.errors import BadInput
from cots.models.dual_encoder import UNTRAINED, DualEncoder
from cots.models.hf_text import quiet_transformers, summarize_error
from cots.models.pickled import PickledFormat, read_pickled

TORCHSCRIPT = PickledFormat("CLIP", modules=("__torch__.",), max_bytes=2**33)  # ViT-L/14 at 336 px takes 1.7 GB
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
CLIP_TOKENIZER = "openai/clip-vit-base-patch32"  # OpenAI's files hold no vocabulary
NEEDED_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "pytorch_model*.bin", "open_clip_pytorch_model.bin"]
MASK = "backbone.mask_embedding"
TEXT_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")  # of a text tower of transformers
HEAD_WIDTH = 64  # of an attention head of CLIP, unless its configuration says otherwise
HEADS = {
    1280: 16,
    1408: 16,
    1664: 16,
}  # by width: ViT-H, ViT-g and ViT-bigG, where a file of weights has no configuration
NORM_EPS = {"clip": 1e-5, "siglip": 1e-6}
TEXT_DEFAULTS = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}  # open_clip's
LOAD_ERRORS = (AssertionError, AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError)

# Names of OpenAI and open_clip, and those of transformers, in the order in which they are replaced.
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
# Names of transformers, and those of timm.
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

Weights = dict[str, Tensor]


class Checkpoint(NamedTuple):
    """A two-tower checkpoint in this project's form."""

    config: dict[str, Any]  # of a `DualEncoder`
    weights: Weights  # of both encoders, but for the mask token, which no checkpoint has
    tokenizer: PreTrainedTokenizerBase


def load_two_tower(name: str) -> DualEncoder:
    """Load CLIP or SigLIP: both towers, projections, tokenizer, temperature and bias.

    The embeddings are those of the library that stored it. `config` of the model has the temperature tau = exp(-scale),
    and for SigLIP the bias of its logits. The mask token, which no checkpoint has, is zero.

    Args:
        name: a name on the Hugging Face hub, a folder of transformers or open_clip, or a file of weights in the
            format of OpenAI or open_clip.

    Raises:
        BadInput: there is no such checkpoint, it is of another architecture, or weights or tokenizer do not fit.
    """
    checkpoint = read_checkpoint(name)
    try:
        model = DualEncoder.build(checkpoint.config, checkpoint.tokenizer)
        for tower in ("image", "text"):
            encoder = getattr(model, tower)
            weights = {
                key.removeprefix(f"{tower}."): value
                for key, value in checkpoint.weights.items()
                if key.startswith(f"{tower}.")
            }
            own = encoder.state_dict()
            raise_if_incomplete(name, tower, expected=own.keys() - {MASK}, present=weights.keys())
            if MASK in own:
                weights[MASK] = torch.zeros_like(own[MASK])
            encoder.load_state_dict(weights)
    except LOAD_ERRORS as error:
        raise BadInput(f"{name} does not fit its own configuration: {summarize_error(error)}") from None
    return model.to(default_device())


def raise_if_incomplete(name: str, tower: str, *, expected: Iterable[str], present: Iterable[str]) -> None:
    """Raise `BadInput` if weights of a tower are missing, or if there are others."""
    missing, others = sorted(set(expected) - set(present)), sorted(set(present) - set(expected))
    if missing:
        raise BadInput(f"{name} lacks {len(missing)} weights of the {tower} tower, such as {missing[0]}")
    if others:
        raise BadInput(f"{name} has {len(others)} unknown weights in the {tower} tower, such as {others[0]}")


def read_checkpoint(name: str) -> Checkpoint:
    """Read a checkpoint of any of the formats.

    Raises:
        BadInput: there is no such checkpoint, or it is of another architecture.
    """
    path = fetch(name)
    try:
        if path.is_file():
            return read_open_clip(name, path, {}, path.parent)
        if (path / OPEN_CLIP_CONFIG).is_file():
            file = next((path / name for name in OPEN_CLIP_WEIGHTS if (path / name).is_file()), None)
            if file is None:
                raise BadInput(f"{name} has {OPEN_CLIP_CONFIG} and no {OPEN_CLIP_WEIGHTS[0]}")
            return read_open_clip(name, file, json.loads((path / OPEN_CLIP_CONFIG).read_text(encoding="utf8")), path)
        if (path / "config.json").is_file():
            return read_transformers(name, path)
    except LOAD_ERRORS as error:
        raise BadInput(f"{name} is a damaged checkpoint: {summarize_error(error)}") from None
    raise BadInput(f"{name} is no checkpoint of CLIP or SigLIP: it has neither config.json nor {OPEN_CLIP_CONFIG}")


def fetch(name: str) -> Path:
    """The local folder or file of a checkpoint, downloaded from the hub or taken from its cache.

    Raises:
        BadInput: there is none.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    try:
        return Path(snapshot_download(name, allow_patterns=NEEDED_FILES))
    except HFValidationError:
        raise BadInput(f"no checkpoint {name}: no such folder or file, and no name of the hub") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BadInput(
            f"no checkpoint {name}: no such folder, and the hub does not give it: {summarize_error(error)}"
        ) from None


def read_transformers(name: str, folder: Path) -> Checkpoint:
    """Read a folder of transformers' `CLIPModel` or `SiglipModel`.

    Raises:
        BadInput: it holds another model, or lacks weights.
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
    if others := sorted(key for key in loading["unexpected_keys"] if not key.endswith("position_ids")):
        raise BadInput(f"{name} has {len(others)} unknown weights, such as {others[0]}")
    weights: Weights = model.state_dict()
    vision, text = config.vision_config, config.text_config
    if vision.layer_norm_eps != NORM_EPS[kind]:
        raise BadInput(f"{name} has norms with an epsilon of {vision.layer_norm_eps}, not {kind}'s {NORM_EPS[kind]}")
    published = read_pixels(folder)
    image_config = image_tower(
        siglip=kind == "siglip",
        size=vision.image_size,
        patch=vision.patch_size,
        width=vision.hidden_size,
        depth=vision.num_hidden_layers,
        heads=vision.num_attention_heads,
        mlp_ratio=vision.intermediate_size / vision.hidden_size,
        activation=vision.hidden_act,
        mean=published.get("image_mean"),
        std=published.get("image_std"),
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
        image=to_timm(strip(weights, "vision_model.")),
        text=strip(weights, "text_model."),
        image_projection=weights.get("visual_projection.weight"),
        text_projection=weights.get("text_projection.weight"),
        scales=weights,
        tokenizer=tokenizer,
    )


def read_pixels(folder: Path) -> dict[str, Any]:
    """The settings of the image processor in a folder of transformers, under the names of either of its files."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            settings: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf8"))
            pixels: dict[str, Any] = settings.get("image_processor", settings)
            return pixels
    return {}


def read_open_clip(name: str, file: Path, settings: dict[str, Any], folder: Path) -> Checkpoint:
    """Read weights in open_clip's format, which is OpenAI's.

    Args:
        name: for messages; file: of weights.
        settings: content of open_clip_config.json; {} means CLIP, with sizes from the shapes of its weights.
        folder: holds the tokenizer, unless it is CLIP's.

    Raises:
        BadInput: a tower is of another architecture.
    """
    weights = read_state_dict(name, file)
    text_weights = strip(weights, "text.") or weights
    model = settings.get("model_cfg", {})
    vision, text = model.get("vision_cfg", {}), TEXT_DEFAULTS | model.get("text_cfg", {})
    siglip = bool(text.get("no_causal_mask"))
    if "ln_final.weight" not in text_weights or not {"visual.conv1.weight", "visual.trunk.pos_embed"} & weights.keys():
        raise BadInput(f"{name} is no CLIP with a vision transformer: its towers are of another architecture")
    if siglip != ("timm_model_name" in vision):
        raise BadInput(f"{name} is neither CLIP nor SigLIP: it mixes their towers")
    if strip(weights, "visual.head."):
        raise BadInput(f"{name} projects its images after pooling by a head of its own, which SigLIP does not")
    activation = "quick_gelu" if model.get("quick_gelu", "input_resolution" in weights) else "gelu"
    if siglip:
        image_weights = strip(weights, "visual.trunk.")
        heads, image_activation = trunk_settings(vision["timm_model_name"])
    else:
        image_weights = to_timm(to_transformers(strip(weights, "visual.")))
        heads, image_activation = heads_of_clip(image_weights, vision), activation
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
    sizes = text if settings else text | sizes_of_text(text_weights)
    projection = text_projection(name, text_weights)
    return assemble(
        image_config,
        text_tower(
            "siglip_text_model" if siglip else "clip_text_model",
            tokenizer,
            options=open_clip_text_options(sizes, text_weights, activation),
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
    """Section `image` of a model's config, with sizes from the shapes of its weights, in timm's names."""
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


def open_clip_text_options(text: dict[str, Any], weights: Weights, activation: str) -> dict[str, Any]:
    """Settings of transformers' text tower, from open_clip's `text_cfg`."""
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


def text_projection(name: str, weights: Weights) -> Tensor:
    """The projection (D, W) of open_clip's text tower, which CLIP stores transposed.

    Raises:
        BadInput: there is none.
    """
    if "text_projection" in weights:
        return weights["text_projection"].T
    if "text_projection.weight" in weights:
        return weights["text_projection.weight"]
    raise BadInput(f"{name} has no projection of its texts")


def heads_of_clip(weights: Weights, vision: dict[str, Any]) -> int:
    """Number of heads of CLIP's image tower: by its configuration, or as in the published models of its width."""
    width: int = weights["pos_embed"].shape[-1]
    return width // vision["head_width"] if "head_width" in vision else HEADS.get(width, width // HEAD_WIDTH)


def trunk_settings(name: str) -> tuple[int, str]:
    """Number of heads and activation of a timm image tower, by its name."""
    with torch.device("meta"):
        block = timm.create_model(name, num_classes=0).blocks[0]
    tanh = isinstance(block.mlp.act, GELUTanh)
    return block.attn.num_heads, "gelu_pytorch_tanh" if tanh else "gelu"


def read_state_dict(name: str, file: Path) -> Weights:
    """Weights of a file as float32.

    Raises:
        BadInput: they cannot be read without running code.
    """
    try:
        if file.suffix == ".safetensors":
            weights: Weights = load_file(file)
        elif is_torchscript(file):
            weights = read_pickled(file, TORCHSCRIPT)
        else:
            stored: Any = torch.load(file, weights_only=True, mmap=zipfile.is_zipfile(file))
            weights = stored.get("state_dict", stored)
        return {
            key.removeprefix("module."): value.float() if value.is_floating_point() else value
            for key, value in weights.items()
        }
    except BadInput:
        raise
    except Exception as error:  # torch.load raises errors of any type
        raise BadInput(f"{name} is no readable file of weights: {summarize_error(error)}") from None


def is_torchscript(file: Path) -> bool:
    """Whether `torch.jit.save` wrote the file, as OpenAI did; loading it with torch would run its code."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def sizes_of_text(weights: Weights) -> dict[str, int]:
    """Settings of CLIP's text tower from the shapes of its weights."""
    width = weights["ln_final.weight"].shape[0]
    return {
        "context_length": weights["positional_embedding"].shape[0],
        "vocab_size": weights["token_embedding.weight"].shape[0],
        "width": width,
        "heads": max(width // HEAD_WIDTH, 1),
        "layers": len({key.split(".")[2] for key in weights if key.startswith("transformer.resblocks.")}),
    }


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder holds a tokenizer in a format of transformers."""
    return any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json", "tokenizer.model"))


def canonicalize(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the tokenizer lower-case texts and drop punctuation, as SigLIP's texts were; changes it in place.

    open_clip also repairs wrongly decoded texts and HTML entities first; texts with either differ.
    """
    backend = tokenizer.backend_tokenizer
    underscores = normalizers.Replace("_", " ")
    punctuation = normalizers.Replace(Regex(r"[!-/:-@\[-`{-~‘’“”]"), "")
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    before = [underscores, normalizers.Lowercase(), punctuation, spaces, normalizers.Strip()]
    backend.normalizer = normalizers.Sequence([*before, backend.normalizer] if backend.normalizer else before)


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


TEXT_OPTIONS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "attention_dropout"),
)


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
    """Join both towers.

    Args:
        image_config, text_config: of `image_tower` and `text_tower`.
        image: weights of the image tower, in timm's names; text: of the text tower, in transformers'.
        image_projection: (D, W); None if there is none, because its tokens have the dimension D.
        text_projection: (D, W); None if it is transformers' `head` of the text tower.
        scales: has `logit_scale` and, for SigLIP, `logit_bias`.
        tokenizer: of the texts.
        text_bias: (D,) of the text's projection, if it has one.
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


def strip(weights: Weights, prefix: str) -> Weights:
    """The weights whose names begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def to_transformers(weights: Weights) -> Weights:
    """Weights of one tower by the names of transformers, from those of OpenAI and open_clip."""
    renamed: Weights = {}
    for key, value in weights.items():
        name = replace_all(key, FROM_OPEN_CLIP)
        if joined := re.fullmatch(r"(.*\.self_attn\.)in_proj_(weight|bias)", name):
            for part, of_part in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{joined[1]}{part}_proj.{joined[2]}"] = of_part
        elif name != "proj":
            renamed[name] = value
    return renamed


def to_timm(weights: Weights) -> Weights:
    """Weights of an image tower by the names of timm, from those of transformers."""
    renamed: Weights = {}
    for key, value in weights.items():
        if split := re.fullmatch(r"(.*\.self_attn\.)q_proj\.(weight|bias)", key):
            parts = [weights[f"{split[1]}{part}_proj.{split[2]}"] for part in "qkv"]
            renamed[replace_all(f"{split[1]}qkv.{split[2]}", TO_TIMM)] = torch.cat(parts)
        elif joined := re.fullmatch(r"head\.attention\.in_proj_(weight|bias)", key):
            query, *others = value.chunk(3)
            renamed[f"attn_pool.q.{joined[1]}"], renamed[f"attn_pool.kv.{joined[1]}"] = query, torch.cat(others)
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
