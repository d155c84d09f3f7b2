"""Small checkpoints of CLIP and SigLIP, saved by the libraries themselves, with the vectors that the libraries give."""

import json
import math
import string
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

SIZE, PATCH, LIMIT = 32, 8, 12  # pixels; tokens of a text
TEXTS = ["a red star", "blue", "", "a red star and a ring " * 9]
WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "star", "ring"]


@dataclass(frozen=True)
class Reference:
    """A checkpoint and the library's own functions, before normalization.

    Attributes:
        path: what `load_two_tower` is given.
        encode_images: (B, 3, H, W) to (B, D); encode_texts: TEXTS to (4, D).
        temperature, bias: of the logits.
    """

    path: Path
    encode_images: Callable[[Tensor], Tensor]
    encode_texts: Callable[[], Tensor]
    temperature: float
    bias: float | None


@register_model  # type: ignore[untyped-decorator]
def vit_test_siglip(pretrained: bool = False, **options: Any) -> Any:
    """SigLIP's image tower with two small blocks."""
    shape = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": 64, "depth": 2, "num_heads": 1, "class_token": False}
    return timm.models.build_model_with_cfg(
        VisionTransformer,
        "vit_test_siglip",
        pretrained,
        **(shape | {"global_pool": "map"} | options),
    )


@register_model  # type: ignore[untyped-decorator]
def vit_test_siglip_so(pretrained: bool = False, **options: Any) -> Any:
    """The same in the form of so400m: heads narrower than 64, and the tanh form of GELU."""
    return vit_test_siglip(pretrained, **({"num_heads": 4, "act_layer": "gelu_tanh"} | options))


def clip_tokenizer() -> PreTrainedTokenizerBase:
    """CLIP's kind of tokenizer: pairs of letters, and a mark of the end of a word."""
    letters = string.ascii_lowercase + string.digits
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>"]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer: PreTrainedTokenizerBase = CLIPTokenizer(vocab=vocabulary, merges=[("r", "e"), ("re", "d</w>")])
    return tokenizer


def siglip_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer of words with an end, and neither a beginning nor [MASK]."""
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    return tokenizer


def shake(model: nn.Module) -> None:
    """Add noise to all weights: biases and probes that begin as zeros would hide a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))


def tau(model: Any) -> float:
    """The temperature of a model that stores log(1 / tau)."""
    return math.exp(-model.logit_scale.item())


def pooled(output: Any) -> Tensor:
    """The vectors of transformers' `get_image_features`."""
    vectors: Tensor = getattr(output, "pooler_output", output)
    return vectors


def save_transformers_clip(folder: Path) -> Reference:
    """transformers' CLIPModel with its tokenizer and pixels."""
    torch.manual_seed(1)
    tokenizer = clip_tokenizer()
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    block = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 80}
    text = {"vocab_size": len(tokenizer), "hidden_size": 32, "max_position_embeddings": LIMIT} | block | special
    vision = {"hidden_size": 48, "image_size": SIZE, "patch_size": PATCH} | block
    model: Any = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    shake(model)
    save_folder(folder, model, tokenizer)
    tokens = tokenizer(TEXTS, padding=True, truncation=True, max_length=LIMIT, return_tensors="pt")
    return Reference(
        folder,
        lambda images: pooled(model.get_image_features(images)),
        lambda: pooled(model.get_text_features(**tokens)),
        tau(model),
        None,
    )


def save_transformers_siglip(folder: Path) -> Reference:
    """transformers' SiglipModel, which is also SigLIP 2 at a fixed resolution."""
    torch.manual_seed(2)
    tokenizer = siglip_tokenizer()
    block = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 80, "hidden_size": 48}
    special = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": LIMIT, "projection_size": 48} | block | special
    vision = {"image_size": SIZE, "patch_size": PATCH} | block
    model: Any = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()
    shake(model)
    save_folder(folder, model, tokenizer)
    return Reference(
        folder,
        lambda images: pooled(model.get_image_features(images)),
        lambda: pooled(model.get_text_features(input_ids=padded(tokenizer))),
        tau(model),
        model.logit_bias.item(),
    )


def save_folder(folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """A folder of transformers with the image processor's settings."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pixels = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))


def padded(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """SigLIP's token ids: always of the same length."""
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=LIMIT, return_tensors="pt")
    ids: Tensor = tokens["input_ids"]
    return ids


def open_clip_model(*, quick_gelu: bool) -> tuple[Any, dict[str, Any], PreTrainedTokenizerBase, Tensor]:
    """open_clip's CLIP, its configuration, tokenizer, and token ids of TEXTS as open_clip pads them."""
    torch.manual_seed(3)
    tokenizer = clip_tokenizer()
    vision = {"image_size": SIZE, "layers": 2, "width": 128, "patch_size": PATCH}
    text = {"context_length": LIMIT, "vocab_size": len(tokenizer), "width": 64, "heads": 1, "layers": 2}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick_gelu}
    model = CLIP(**config).eval()
    shake(model)
    rows = tokenizer(TEXTS, truncation=True, max_length=LIMIT)["input_ids"]
    ids = torch.tensor([row + [0] * (LIMIT - len(row)) for row in rows])
    return model, config, tokenizer, ids


def save_open_clip(folder: Path, *, quick_gelu: bool, weights: str = "open_clip_model.safetensors") -> Reference:
    """open_clip's folder of CLIP."""
    model, config, tokenizer, ids = open_clip_model(quick_gelu=quick_gelu)
    save_open_clip_folder(folder, model, config, tokenizer, weights)
    return Reference(folder, model.encode_image, lambda: model.encode_text(ids), tau(model), None)


def save_open_clip_siglip(folder: Path, *, tower: str = "vit_test_siglip") -> Reference:
    """open_clip's folder of SigLIP, whose image tower is timm's."""
    torch.manual_seed(4)
    tokenizer = siglip_tokenizer()
    vision = {"image_size": SIZE, "timm_model_name": tower, "timm_model_pretrained": False}
    vision |= {"timm_pool": "map", "timm_proj": "none"}
    text: dict[str, Any] = {"context_length": LIMIT, "vocab_size": len(tokenizer), "width": 64, "heads": 1, "layers": 2}
    text |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
    text |= {"act_kwargs": {"approximate": "tanh"}, "tokenizer_kwargs": {"clean": "canonicalize"}}
    config = {"embed_dim": 64, "init_logit_bias": -10, "vision_cfg": vision, "text_cfg": text}
    model: Any = CustomTextCLIP(**config).eval()
    shake(model)
    save_open_clip_folder(folder, model, config | {"custom_text": True}, tokenizer, "open_clip_model.safetensors")
    return Reference(
        folder,
        model.encode_image,
        lambda: model.encode_text(padded(tokenizer)),
        tau(model),
        model.logit_bias.item(),
    )


def save_open_clip_folder(
    folder: Path, model: nn.Module, config: dict[str, Any], tokenizer: PreTrainedTokenizerBase, weights: str
) -> None:
    """The files that open_clip pushes to the hub."""
    folder.mkdir(parents=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if weights.endswith(".safetensors"):
        save_file(state, folder / weights)
    else:
        torch.save(state, folder / weights)
    pixels = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pixels}))
    tokenizer.save_pretrained(folder)


class Published(nn.Module):
    """A model in the form in which OpenAI scripted its own: three numbers are buffers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            setattr(self, name, child)
        for name, parameter in model.named_parameters(recurse=False):
            setattr(self, name, parameter)
        for name, value in (("input_resolution", SIZE), ("context_length", LIMIT), ("vocab_size", 76)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, images: Tensor) -> Any:
        """The image tower: tracing needs something to run."""
        return cast("nn.Module", self.visual)(images)


def save_openai(folder: Path, *, scripted: bool) -> Reference:
    """OpenAI's file, a TorchScript archive of CLIP, or the weights alone."""
    model, _, tokenizer, ids = open_clip_model(quick_gelu=True)
    tokenizer.save_pretrained(folder)
    file, published = folder / "ViT-B-32.pt", Published(model)
    if scripted:
        save_torchscript(published, torch.zeros(1, 3, SIZE, SIZE), file)
    else:
        torch.save(published.state_dict(), file)
    return Reference(file, model.encode_image, lambda: model.encode_text(ids), tau(model), None)


def save_torchscript(module: nn.Module, example: Tensor, file: Path) -> None:
    """Write a TorchScript archive; torch warns that it is deprecated, and of what tracing fixes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, example, check_trace=False).save(str(file))  # type: ignore[no-untyped-call]


KINDS: dict[str, Callable[[Path], Reference]] = {
    "transformers CLIP": save_transformers_clip,
    "transformers SigLIP": save_transformers_siglip,
    "open_clip CLIP": lambda folder: save_open_clip(folder, quick_gelu=False),
    "open_clip CLIP, quick GELU, .bin": lambda folder: save_open_clip(
        folder, quick_gelu=True, weights="open_clip_pytorch_model.bin"
    ),
    "open_clip SigLIP": save_open_clip_siglip,
    "OpenAI": lambda folder: save_openai(folder, scripted=True),
    "OpenAI, weights alone": lambda folder: save_openai(folder, scripted=False),
}
