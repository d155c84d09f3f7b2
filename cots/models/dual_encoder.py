"""The two-stream model that is deployed: pictures, clips and texts to unit vectors of one space."""

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

IMAGE_BACKBONE_KEYS = (
    "name",
    "pretrained",
    "size",
    "patch",
    "stem",
    "options",
)  # that the image backbone is built from

SORT_WINDOW = 100  # batches whose texts are put in order of length together

IMAGE_BACKBONES: dict[str, Callable[..., ImageBackbone]] = {"timm": VitBackbone}  # by `kind`; without one, the first
TEXT_BACKBONES: dict[str, Callable[..., TextBackbone]] = {"transformers": HfTextBackbone}

B = TypeVar("B")


class TextBatch(NamedTuple):
    """Texts that are encoded together."""

    rows: list[int]  # where each stands among all texts
    token_ids: list[list[int]]  # of each its ids, cut to `max_tokens`


class DualEncoder:
    """Both streams with tokenizer and preprocessing: what training leaves behind and what a service loads.

    Args:
        image: the image stream; text: the text stream.
        tokenizer: of the text stream.
        settings: everything needed to build the same streams again, as JSON: `dim`, and the arguments of the two
            backbones under `image` and `text`, with the pictures' `size`, `mean` and `std`, and `max_tokens`. They
            name no hub and no other folder.
    """

    def __init__(
        self, *, image: ImageEncoder, text: TextEncoder, tokenizer: PreTrainedTokenizerBase, config: dict[str, Any]
    ) -> None:
        self.image, self.text, self.tokenizer, self.config = image, text, tokenizer, config
        self._digest: str | None = None  # of the weights before `for_queries`

    @classmethod
    def build(cls, config: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Self:
        """A model from settings, with random weights or those that the settings name.

        Raises:
            BadInput: a stream cannot be built as the settings ask.
        """
        fused = default_device().type != "cpu"
        vision, language = config["image"], config["text"]
        image = _backbone_class(IMAGE_BACKBONES, "image", vision)(
            **{key: vision[key] for key in IMAGE_BACKBONE_KEYS}, fused_attention=fused
        )
        text = _backbone_class(TEXT_BACKBONES, "text", language)(
            name=language["name"],
            pretrained=language["pretrained"],
            vocab_size=len(tokenizer),
            pad_token=tokenizer.pad_token_id,
            options=language["options"],
            fused_attention=fused,
        )
        if text.max_tokens is not None and text.max_tokens < language["max_tokens"]:
            asked = f"model.text.max_tokens is {language['max_tokens']}"
            raise BadInput(f"{asked}, and {language['name']} has positions for {text.max_tokens}: give less")
        config = config | {
            "image": vision | {"pretrained": False, "name": image.name, "options": image.options},
            "text": language | {"pretrained": False, "name": text.name, "options": text.options},
        }
        return cls(
            image=ImageEncoder(image, dim=config["dim"], pool=vision["pool"]),
            text=TextEncoder(text, dim=config["dim"], pool=language["pool"]),
            tokenizer=tokenizer,
            settings=config,
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model folder as `save` writes it; no hub is asked.

        Raises:
            BadInput: the folder is not such a model, or its weights do not fit its settings.
        """
        with model_load_errors(folder, (WEIGHTS, CONFIG, TOKENIZER), kind="COTS model"):
            settings = json.loads((folder / CONFIG).read_text(encoding="utf8"))
            model = cls.build(settings, load_tokenizer(folder / TOKENIZER))
            weights = load_file(folder / WEIGHTS)
            for name in ("image", "text"):
                part = {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")}
                getattr(model, name).load_state_dict(part)
        return model.to(default_device())

    def to(self, device: torch.device) -> Self:
        """Move both streams."""
        self.image.to(device)
        self.text.to(device)
        return self

    def for_inference(self) -> Self:
        """Keep the weights of matrix products in the precision in which they are multiplied, from now on.

        The vectors are the same, bit by bit, and no call converts the weights any more: a text alone takes 0.65 of its
        time through BERT-base (docs/performance.md). The model keeps its digest, and is good for nothing else: it can
        be neither trained nor saved.
        """
        self._digest = self.digest
        kept = compute_dtype(self.image.projection.weight.device)
        for module in chain(self.image.modules(), self.text.modules()):
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(kept)
        return self

    def with_image_size(self, size: int) -> Self:
        """A copy for pictures of another size; position embeddings are interpolated, no other weight changes.

        Args:
            size: pixels along a side, a multiple of the patch; the model's own size gives an equal model.

        Raises:
            BadInput: not a multiple of the patch.
        """
        image, text = copy.deepcopy(self.image), copy.deepcopy(self.text)
        image.backbone.resize(size)
        settings = self.config | {"image": self.config["image"] | {"size": size}}
        return type(self)(image=image, text=text, tokenizer=self.tokenizer, settings=settings)

    def save(self, folder: Path) -> None:
        """Write weights, settings and tokenizer, aside first; nothing in it is pickled."""
        assert self._digest is None, "the weights were rounded for queries: save the model that was loaded"
        weights = {f"image.{k}": v for k, v in self.image.state_dict().items()}
        weights |= {f"text.{k}": v for k, v in self.text.state_dict().items()}
        settings = (CONFIG, self.config)
        save_model_folder(folder, weights=(WEIGHTS, weights), config=settings, tokenizer=self.tokenizer)

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self.config["dim"])

    @property
    def digest(self) -> str:
        """sha256 over weights and settings: equal digests give equal vectors."""
        if self._digest:
            return self._digest
        sha = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for stream in (self.image, self.text):
            for name, value in stream.state_dict().items():
                sha.update(name.encode())
                sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return sha.hexdigest()

    def encode_images(self, images: Iterable[Image.Image], *, batch: int) -> NDArray[np.float32]:
        """Unit rows (N, D) of RGB pictures of any size; they may come from a generator."""
        return self.encode_videos(([picture] for picture in images), batch=batch)

    def encode_videos(self, videos: Iterable[Sequence[Image.Image]], *, batch: int) -> NDArray[np.float32]:
        """Unit rows (N, D) of clips, each of one or more RGB frames; frames are averaged before the projection.

        Args:
            clips: any number of them; lengths may differ.
            batch: clips encoded at once.
        """
        return self._to_numpy(
            self._project(own.mean(dim=0) for own in self._pool_videos(chunk)) for chunk in batched(videos, batch)
        )

    def encode_videos_and_frames(
        self, videos: Sequence[Sequence[Image.Image]], *, batch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What `encode_videos` gives, and each frame by itself, of one pass through the image stream.

        Returns:
            Unit rows (N, D) of the clips and (F, D) of all their frames, clip after clip.
        """
        both = self._to_numpy(
            self._project(row for own in self._pool_videos(chunk) for row in (own.mean(dim=0), *own))
            for chunk in batched(videos, batch)
        )
        sizes = np.array([1 + len(clip) for clip in videos], np.int64)
        starts = np.cumsum(sizes) - sizes
        return both[starts], np.delete(both, starts, axis=0)

    def encode_texts(self, texts: Sequence[str], *, batch: int) -> NDArray[np.float32]:
        """Unit rows (N, D) of texts, cut to `max_tokens`."""
        batches = list(self.length_sorted_batches(texts, batch=batch))
        order = [row for one in batches for row in one.rows]
        return self.encode_text_batches(batches)[np.argsort(order)]

    def length_sorted_batches(self, texts: Sequence[str], *, batch: int) -> Iterator[TextBatch]:
        """Texts of like numbers of tokens together, so that little is padded."""
        limit = self.config["text"]["max_tokens"]
        for window in batched(range(len(texts)), SORT_WINDOW * batch):
            found = token_ids(self.tokenizer, [texts[row] for row in window], max_tokens=limit)
            tokens = dict(zip(window, found, strict=True))
            for rows in batched(sorted(window, key=lambda row: len(tokens[row])), batch):
                yield TextBatch(rows, [tokens[row] for row in rows])

    def encode_text_batches(self, batches: Iterable[TextBatch]) -> NDArray[np.float32]:
        """Unit rows (N, D) of the texts of some batches, one batch after the other."""
        return self._to_numpy(self._encode_token_ids(one.token_ids) for one in batches)

    def _encode_token_ids(self, tokens: list[list[int]]) -> Tensor:
        ids, attended = pad_token_ids(tokens, pad_token=self.tokenizer.pad_token_id)
        where = self.text.projection.weight.device
        feature: Tensor = self.text(torch.from_numpy(ids).to(where), torch.from_numpy(attended).to(where))
        return feature

    def _pool_videos(self, clips: list[Sequence[Image.Image]]) -> list[Tensor]:
        """Of each clip (T, W): its frames before the projection. Clips of one length are encoded together."""
        pooled: list[Tensor] = [torch.empty(0)] * len(clips)
        for length in sorted({len(clip) for clip in clips}):
            rows = [row for row, clip in enumerate(clips) if len(clip) == length]
            for row, own in zip(rows, self._pool_frames([clips[row] for row in rows]), strict=True):
                pooled[row] = own
        return pooled

    def _pool_frames(self, clips: list[Sequence[Image.Image]]) -> Tensor:
        vision = self.config["image"]
        pixels = np.stack(
            [[resize_squash(frame, vision["size"]) for frame in clip] for clip in clips]
        )  # (B, T, H, W, 3)
        where = self.image.projection.weight.device
        frames = normalize_pixels(pixels, mean=vision["mean"], std=vision["std"], device=where)
        return self.image.pool_frames(frames)

    def _project(self, pooled: Iterable[Tensor]) -> Tensor:
        return self.image.project(torch.stack(list(pooled)))

    def _to_numpy(self, parts: Iterator[Tensor]) -> NDArray[np.float32]:
        for stream in (self.image, self.text):
            if stream.training:  # the way through all of its modules would take a quarter of a lone query's time
                stream.eval()
        with torch.inference_mode(), autocast(self.image.projection.weight.device):
            found = [part.float().cpu().numpy() for part in parts]
        return np.concatenate(found) if found else np.zeros((0, self.dim), dtype=np.float32)


def _backbone_class(backbones: dict[str, B], modality: str, settings: dict[str, Any]) -> B:
    """The backbone that settings ask for; folders that name no kind are of the first one.

    Raises:
        BadInput: there is no such kind.
    """
    kind = settings.get("kind", next(iter(backbones)))
    if kind not in backbones:
        raise BadInput(f"model.{modality}.kind is {kind}: give {' or '.join(backbones)}")
    return backbones[kind]
