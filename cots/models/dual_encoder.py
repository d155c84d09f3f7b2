"""The two-stream model: images, videos and texts to unit vectors in a shared space."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from cots.batching import batched
from cots.data.resizing import resize_squash
from cots.data.tokenizer import load_tokenizer, pad_token_ids, token_ids
from cots.devices import autocast, compute_dtype, default_device
from cots.errors import BadInput
from cots.models.backbone import ImageBackbone, TextBackbone
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.hf_text import HfTextBackbone
from cots.models.model_folder import CONFIG, TOKENIZER, WEIGHTS, model_load_errors, save_model_folder
from cots.models.pixels import normalize_pixels
from cots.models.vit import VitBackbone

IMAGE_BACKBONE_KEYS = ("name", "pretrained", "size", "patch", "stem", "options")  # of the config; its arguments
SORT_WINDOW = 100  # batches of texts that are sorted by length together

IMAGE_BACKBONES: dict[str, Callable[..., ImageBackbone]] = {"timm": VitBackbone}  # by `kind`; without one, the first
TEXT_BACKBONES: dict[str, Callable[..., TextBackbone]] = {"transformers": HfTextBackbone}

B = TypeVar("B")


class TextBatch(NamedTuple):
    """Texts that are encoded together."""

    rows: list[int]  # index of each among all texts
    token_ids: list[list[int]]  # token ids of each, truncated to `max_tokens`


class DualEncoder:
    """Both encoders with tokenizer and preprocessing: the model that training saves and a service loads.

    Args:
        image: the image encoder; text: the text encoder.
        tokenizer: of the text encoder.
        config: everything needed to build the same encoders again, as JSON: `dim`, and the arguments of the two
            backbones under `image` and `text`, with image `size`, `mean` and `std`, and `max_tokens`. It refers to no
            hub and to no other folder.
    """

    def __init__(
        self, *, image: ImageEncoder, text: TextEncoder, tokenizer: PreTrainedTokenizerBase, config: dict[str, Any]
    ) -> None:
        self.image, self.text, self.tokenizer, self.config = image, text, tokenizer, config
        self._digest: str | None = None  # of the weights before `for_inference`

    @classmethod
    def build(cls, config: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Self:
        """A model from its config, with random weights or the pretrained ones that the config names.

        Raises:
            BadInput: an encoder cannot be built from the config.
        """
        fused = default_device().type != "cpu"
        image_config, text_config = config["image"], config["text"]
        image = _backbone_class(IMAGE_BACKBONES, "image", image_config)(
            **{key: image_config[key] for key in IMAGE_BACKBONE_KEYS}, fused_attention=fused
        )
        text = _backbone_class(TEXT_BACKBONES, "text", text_config)(
            name=text_config["name"],
            pretrained=text_config["pretrained"],
            vocab_size=len(tokenizer),
            pad_token=tokenizer.pad_token_id,
            options=text_config["options"],
            fused_attention=fused,
        )
        if text.max_tokens is not None and text.max_tokens < text_config["max_tokens"]:
            limit = f"model.text.max_tokens is {text_config['max_tokens']}"
            raise BadInput(f"{limit}, and {text_config['name']} has positions for {text.max_tokens}: give less")
        config = config | {
            "image": image_config | {"pretrained": False, "name": image.name, "options": image.options},
            "text": text_config | {"pretrained": False, "name": text.name, "options": text.options},
        }
        return cls(
            image=ImageEncoder(image, dim=config["dim"], pool=image_config["pool"]),
            text=TextEncoder(text, dim=config["dim"], pool=text_config["pool"]),
            tokenizer=tokenizer,
            config=config,
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a folder that `save` wrote, without access to a hub.

        Raises:
            BadInput: the folder is not such a model, or its weights do not match its config.
        """
        with model_load_errors(folder, (WEIGHTS, CONFIG, TOKENIZER), kind="COTS model"):
            config = json.loads((folder / CONFIG).read_text(encoding="utf8"))
            model = cls.build(config, load_tokenizer(folder / TOKENIZER))
            weights = load_file(folder / WEIGHTS)
            for name in ("image", "text"):
                state = {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")}
                getattr(model, name).load_state_dict(state)
        return model.to(default_device())

    def to(self, device: torch.device) -> Self:
        """Move both encoders to a device."""
        self.image.to(device)
        self.text.to(device)
        return self

    def for_inference(self) -> Self:
        """Convert the weights of linear and convolutional layers to the compute dtype, once and in place.

        The embeddings stay the same to the last bit, and calls no longer convert weights: a single text takes 0.65 of
        its time through BERT-base (docs/performance.md). The digest stays the same. Afterwards the model can be
        neither trained nor saved.
        """
        self._digest = self.digest
        dtype = compute_dtype(self.image.projection.weight.device)
        for module in chain(self.image.modules(), self.text.modules()):
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(dtype)
        return self

    def with_image_size(self, size: int) -> Self:
        """A copy for images of another size; position embeddings are interpolated, no other weight changes.

        Args:
            size: pixels along a side, a multiple of the patch; the present size gives an equal model.

        Raises:
            BadInput: not a multiple of the patch.
        """
        image, text = copy.deepcopy(self.image), copy.deepcopy(self.text)
        image.backbone.resize(size)
        config = self.config | {"image": self.config["image"] | {"size": size}}
        return type(self)(image=image, text=text, tokenizer=self.tokenizer, config=config)

    def save(self, folder: Path) -> None:
        """Write weights, config and tokenizer atomically; nothing is pickled."""
        assert self._digest is None, "the weights were converted by for_inference: save a freshly loaded model"
        weights = {f"image.{k}": v for k, v in self.image.state_dict().items()}
        weights |= {f"text.{k}": v for k, v in self.text.state_dict().items()}
        config = (CONFIG, self.config)
        save_model_folder(folder, weights=(WEIGHTS, weights), config=config, tokenizer=self.tokenizer)

    @property
    def dim(self) -> int:
        """Dimension of the embeddings (D)."""
        return int(self.config["dim"])

    @property
    def digest(self) -> str:
        """SHA-256 of weights and config: models with equal digests have equal embeddings."""
        if self._digest:
            return self._digest
        sha = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for encoder in (self.image, self.text):
            for name, value in encoder.state_dict().items():
                sha.update(name.encode())
                sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return sha.hexdigest()

    def encode_images(self, images: Iterable[Image.Image], *, batch_size: int) -> NDArray[np.float32]:
        """Embeddings (N, D), unit rows, of RGB images of any size; a generator is accepted."""
        return self.encode_videos(([image] for image in images), batch_size=batch_size)

    def encode_videos(self, videos: Iterable[Sequence[Image.Image]], *, batch_size: int) -> NDArray[np.float32]:
        """Embeddings (N, D), unit rows, of videos of one or more RGB frames, averaged before the projection.

        Args:
            videos: any number of them; lengths may differ.
            batch_size: number of videos encoded at once.
        """
        return self._to_numpy(
            self._project(frames.mean(dim=0) for frames in self._pool_videos(chunk))
            for chunk in batched(videos, batch_size)
        )

    def encode_videos_and_frames(
        self, videos: Sequence[Sequence[Image.Image]], *, batch_size: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embeddings of videos and of each of their frames, from one pass through the image encoder.

        Returns:
            Unit rows (N, D) of the videos and (F, D) of all their frames, video by video.
        """
        rows = self._to_numpy(
            self._project(row for frames in self._pool_videos(chunk) for row in (frames.mean(dim=0), *frames))
            for chunk in batched(videos, batch_size)
        )
        sizes = np.array([1 + len(video) for video in videos], np.int64)
        starts = np.cumsum(sizes) - sizes
        return rows[starts], np.delete(rows, starts, axis=0)

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
        return self._to_numpy(self._encode_token_ids(text_batch.token_ids) for text_batch in batches)

    def _encode_token_ids(self, tokens: list[list[int]]) -> Tensor:
        input_ids, attention_mask = pad_token_ids(tokens, pad_token=self.tokenizer.pad_token_id)
        device = self.text.projection.weight.device
        embeddings: Tensor = self.text(
            torch.from_numpy(input_ids).to(device), torch.from_numpy(attention_mask).to(device)
        )
        return embeddings

    def _pool_videos(self, videos: list[Sequence[Image.Image]]) -> list[Tensor]:
        """Pooled frames (T, W) of each video, before the projection; videos of equal length are encoded together."""
        pooled: list[Tensor] = [torch.empty(0)] * len(videos)
        for length in sorted({len(video) for video in videos}):
            rows = [row for row, video in enumerate(videos) if len(video) == length]
            for row, frames in zip(rows, self._pool_frames([videos[row] for row in rows]), strict=True):
                pooled[row] = frames
        return pooled

    def _pool_frames(self, videos: list[Sequence[Image.Image]]) -> Tensor:
        image_config = self.config["image"]
        size = image_config["size"]
        pixels = np.stack([[resize_squash(frame, size) for frame in video] for video in videos])  # (B, T, H, W, 3)
        device = self.image.projection.weight.device
        frames = normalize_pixels(pixels, mean=image_config["mean"], std=image_config["std"], device=device)
        return self.image.pool_frames(frames)

    def _project(self, pooled: Iterable[Tensor]) -> Tensor:
        return self.image.project(torch.stack(list(pooled)))

    def _to_numpy(self, parts: Iterator[Tensor]) -> NDArray[np.float32]:
        for encoder in (self.image, self.text):
            if encoder.training:  # eval() visits every module: a quarter of the time of a single query
                encoder.eval()
        with torch.inference_mode(), autocast(self.image.projection.weight.device):
            arrays = [part.float().cpu().numpy() for part in parts]
        return np.concatenate(arrays) if arrays else np.zeros((0, self.dim), dtype=np.float32)


def _backbone_class(backbones: dict[str, B], modality: str, config: dict[str, Any]) -> B:
    """The backbone class of a config; configs without a kind, as in release 0.1, get the first one.

    Raises:
        BadInput: there is no such kind.
    """
    kind = config.get("kind", next(iter(backbones)))
    if kind not in backbones:
        raise BadInput(f"model.{modality}.kind is {kind}: give {' or '.join(backbones)}")
    return backbones[kind]
