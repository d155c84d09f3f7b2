"""The text half of a model: texts to unit vectors in the space that they share with images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from cots.batching import batched
from cots.data.object_cache import local_part
from cots.data.tokenizer import load_tokenizer, pad_token_ids, token_ids
from cots.devices import autocast, compute_dtype, default_device
from cots.errors import BadInput
from cots.models.backbone import TextBackbone
from cots.models.encoder import Encoder, TextEncoder
from cots.models.hf_text import HfTextBackbone
from cots.models.model_folder import CONFIG, DIGEST, TOKENIZER, WEIGHTS, model_load_errors, read_config

if TYPE_CHECKING:
    from cots.models.shared_blocks import SharedBlocks

MAX_TOKENS = 512  # of a text, for models that limit neither positions nor texts
SORT_WINDOW = 100  # batches of texts that are sorted by length together

# by `kind`; a config without one, as in release 0.1, gets the first
TEXT_BACKBONES: dict[str, Callable[..., TextBackbone]] = {"transformers": HfTextBackbone}

B = TypeVar("B")


class TextBatch(NamedTuple):
    """Texts that are encoded together."""

    rows: list[int]  # index of each among all texts
    token_ids: list[list[int]]  # token ids of each, truncated to `max_tokens`


class TextModel:
    """The text encoder with its tokenizer: all that a search by text needs of a model folder.

    Args:
        text: the text encoder; tokenizer: its tokenizer.
        config: of the whole model, as `DualEncoder` describes it.
        digest: of the whole model, if it is known.
    """

    def __init__(
        self, *, text: TextEncoder, tokenizer: PreTrainedTokenizerBase, config: dict[str, Any], digest: str | None
    ) -> None:
        self.text, self.tokenizer, self.config = text, tokenizer, config
        self._digest = digest

    @property
    def _encoders(self) -> tuple[Encoder, ...]:
        return (self.text,)

    def to(self, device: torch.device) -> Self:
        """Move the encoders to a device."""
        for encoder in self._encoders:
            encoder.to(device)
        return self

    def for_inference(self) -> Self:
        """Convert the weights of linear and convolutional layers to the compute dtype, once and in place.

        The embeddings stay the same to the last bit, and calls no longer convert weights: a single text takes 0.65 of
        its time through BERT-base (docs/performance.md). The digest stays the same. Afterwards the model can be
        neither trained nor saved.
        """
        self._digest = self.digest
        dtype = compute_dtype(self.text.projection.weight.device)
        for module in chain.from_iterable(encoder.modules() for encoder in self._encoders):
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(dtype)
        return self

    @property
    def dim(self) -> int:
        """Dimension of the embeddings (D)."""
        return int(self.config["dim"])

    @property
    def text_length(self) -> int | None:
        """Tokens of every text with its padding, in models that read padding, such as SigLIP; None in others."""
        text_config = self.config["text"]
        return int(text_config["max_tokens"]) if text_config.get("padding") == "max_length" else None

    @property
    def digest(self) -> str:
        """Of the whole model: those with equal digests have equal embeddings."""
        assert self._digest, "a model that was only built has no digest yet"
        return self._digest

    def encode_texts(self, texts: Sequence[str], *, batch_size: int) -> NDArray[np.float32]:
        """Embeddings (N, D), unit rows, of texts truncated to `max_tokens`."""
        batches = list(self.length_sorted_batches(texts, batch_size=batch_size))
        order = [row for text_batch in batches for row in text_batch.rows]
        return self.encode_text_batches(batches)[np.argsort(order)]

    def length_sorted_batches(self, texts: Sequence[str], *, batch_size: int) -> Iterator[TextBatch]:
        """Batches of texts of similar length, to reduce padding."""
        limit = self.config["text"]["max_tokens"]
        for window in batched(range(len(texts)), SORT_WINDOW * batch_size):
            ids = token_ids(self.tokenizer, [texts[row] for row in window], max_tokens=limit)
            tokens = dict(zip(window, ids, strict=True))
            for rows in batched(sorted(window, key=lambda row: len(tokens[row])), batch_size):
                yield TextBatch(rows, [tokens[row] for row in rows])

    def encode_text_batches(self, batches: Iterable[TextBatch]) -> NDArray[np.float32]:
        """Embeddings (N, D), unit rows, of the texts of some batches, in the order of the batches."""
        return self._to_numpy(self.embed_token_ids(text_batch.token_ids) for text_batch in batches)

    def embed_token_ids(self, tokens: list[list[int]]) -> Tensor:
        """Embeddings (N, D), unit rows on the model's device, of texts given as token ids with special tokens."""
        input_ids, attention_mask = pad_token_ids(
            tokens, pad_token=self.tokenizer.pad_token_id, length=self.text_length
        )
        device = self.text.projection.weight.device
        embeddings: Tensor = self.text(
            torch.from_numpy(input_ids).to(device), torch.from_numpy(attention_mask).to(device)
        )
        return embeddings

    def _to_numpy(self, parts: Iterator[Tensor]) -> NDArray[np.float32]:
        for encoder in self._encoders:
            if encoder.training:  # eval() visits every module: a quarter of the time of a single query
                encoder.eval()
        with torch.inference_mode(), autocast(self.text.projection.weight.device):
            arrays = [part.float().cpu().numpy() for part in parts]
        return np.concatenate(arrays) if arrays else np.zeros((0, self.dim), dtype=np.float32)


def load_text_model(folder: Path) -> TextModel | None:
    """Load the text half of a folder that `DualEncoder.save` wrote; nothing of the image encoder is read.

    Returns:
        None if the folder does not hold the model's digest, as those of release 0.1: load the whole model then.

    Raises:
        BadInput: the folder is not such a model, or its weights do not match its config.
    """
    with model_load_errors(folder, (WEIGHTS, CONFIG, TOKENIZER), kind="COTS model"):
        config = read_config(folder)
        with safe_open(local_part(folder / WEIGHTS), framework="pt") as weights:
            digest = (weights.metadata() or {}).get(DIGEST)
            if digest is None:
                return None
            tokenizer = load_tokenizer(folder / TOKENIZER)
            backbone, text_config = build_text_backbone(config, tokenizer)
            shared = build_shared_blocks(config)
            text = TextEncoder(backbone, dim=config["dim"], pool=text_config["pool"], shared=shared)
            names = [name for name in weights.keys() if name.startswith("text.")]  # noqa: SIM118  no iterator
            text.load_state_dict({name.removeprefix("text."): weights.get_tensor(name) for name in names})
    return TextModel(text=text, tokenizer=tokenizer, config=config, digest=digest).to(default_device())


def fill_nulls(config: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The config with values for its keys that are null."""
    return {key: values.get(key) if value is None else value for key, value in config.items()}


def build_shared_blocks(config: dict[str, Any]) -> "SharedBlocks | None":
    """The blocks that both encoders of a model's config share, with random weights; None without `shared_blocks`."""
    num_blocks = config.get("shared_blocks", 0)
    if not num_blocks:
        return None
    from cots.models.shared_blocks import SharedBlocks  # imports timm

    return SharedBlocks(dim=config["dim"], num_blocks=num_blocks)


def build_text_backbone(
    config: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> tuple[TextBackbone, dict[str, Any]]:
    """The text backbone of a model's config, with random weights or the pretrained ones that the config names.

    Returns:
        The backbone, and section `text` of the config without nulls.

    Raises:
        BadInput: it cannot be built, or it has positions for fewer tokens than the config asks for.
    """
    text_config = config["text"]
    backbone = backbone_class(TEXT_BACKBONES, "text", text_config)(
        name=text_config["name"],
        pretrained=text_config["pretrained"],
        vocab_size=len(tokenizer),
        pad_token=tokenizer.pad_token_id,
        options=text_config["options"],
        fused_attention=default_device().type != "cpu",
    )
    if None in text_config.values():
        longest = min(backbone.max_tokens or MAX_TOKENS, tokenizer.model_max_length)
        text_config = fill_nulls(text_config, {"max_tokens": longest, "pool": "mean"} | backbone.checkpoint_settings)
    if backbone.max_tokens is not None and backbone.max_tokens < text_config["max_tokens"]:
        limit = f"model.text.max_tokens is {text_config['max_tokens']}"
        raise BadInput(f"{limit}, and {text_config['name']} has positions for {backbone.max_tokens}: give less")
    return backbone, text_config


def backbone_class(backbones: dict[str, B], modality: str, config: dict[str, Any]) -> B:
    """The backbone class of a config; configs without a kind, as in release 0.1, get the first one.

    Raises:
        BadInput: there is no such kind.
    """
    kind = config.get("kind", next(iter(backbones)))
    if kind not in backbones:
        raise BadInput(f"model.{modality}.kind is {kind}: give {' or '.join(backbones)}")
    return backbones[kind]
