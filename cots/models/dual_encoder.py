"""The two-stream model: images, videos and texts to unit vectors in a shared space."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from cots.batching import batched
from cots.data.object_cache import local_part
from cots.data.resizing import resize_squash
from cots.data.tokenizer import load_tokenizer
from cots.devices import default_device
from cots.models.backbone import ImageBackbone
from cots.models.class_head import ClassHead
from cots.models.encoder import Encoder, ImageEncoder, TextEncoder
from cots.models.model_folder import (
    CONFIG,
    DIGEST,
    TOKENIZER,
    WEIGHTS,
    model_load_errors,
    read_config,
    save_model_folder,
    update_digest,
)
from cots.models.pixels import normalize_pixels
from cots.models.text_model import TextModel, backbone_class, build_shared_blocks, build_text_backbone, fill_nulls
from cots.models.vit import VitBackbone

IMAGE_BACKBONE_KEYS = ("name", "pretrained", "size", "patch", "stem", "options")  # of the config; its arguments

# the pixels' mean and standard deviation by channel, for encoders without a checkpoint: CLIP's
UNTRAINED = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "pool": "mean",
}

# by `kind`; a config without one, as in release 0.1, gets the first
IMAGE_BACKBONES: dict[str, Callable[..., ImageBackbone]] = {"timm": VitBackbone}


class DualEncoder(TextModel):
    """Both encoders with tokenizer and preprocessing: the model that training saves and a service loads.

    Args:
        image: the image encoder; text: the text encoder.
        tokenizer: of the text encoder.
        config: everything needed to build the same encoders again, as JSON: `dim`, and the arguments of the two
            backbones under `image` and `text`, with image `size`, `mean` and `std`, and `max_tokens`; `shared_blocks`
            if there are any; `classifier` with the names of the `classes` and the `column` of the source that holds
            them, if there is a head. It refers to no hub and to no other folder.
        class_head: the classification head, on the CPU; None if none was trained.
    """

    def __init__(
        self,
        *,
        image: ImageEncoder,
        text: TextEncoder,
        tokenizer: PreTrainedTokenizerBase,
        config: dict[str, Any],
        class_head: ClassHead | None = None,
    ) -> None:
        super().__init__(text=text, tokenizer=tokenizer, config=config, digest=None)
        self.image, self.class_head = image, class_head

    @classmethod
    def build(cls, config: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Self:
        """A model from its config, with random weights or the pretrained ones that the config names.

        Raises:
            BadInput: an encoder cannot be built from the config.
        """
        image_config, text_config = config["image"], config["text"]
        image = backbone_class(IMAGE_BACKBONES, "image", image_config)(
            **{key: image_config[key] for key in IMAGE_BACKBONE_KEYS},
            fused_attention=default_device().type != "cpu",
        )
        image_config = fill_nulls(image_config, UNTRAINED | image.checkpoint_settings)
        text, text_config = build_text_backbone(config, tokenizer)
        config = config | {
            "image": image_config | {"pretrained": False, "name": image.name, "options": image.options},
            "text": text_config | {"pretrained": False, "name": text.name, "options": text.options},
        }
        shared = build_shared_blocks(config)
        return cls(
            image=ImageEncoder(image, dim=config["dim"], pool=image_config["pool"], shared=shared),
            text=TextEncoder(text, dim=config["dim"], pool=text_config["pool"], shared=shared),
            tokenizer=tokenizer,
            config=config,
            class_head=ClassHead(dim=config["dim"], num_classes=len(config["classifier"]["classes"]))
            if "classifier" in config
            else None,
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a folder that `save` wrote, without access to a hub.

        Raises:
            BadInput: the folder is not such a model, or its weights do not match its config.
        """
        with model_load_errors(folder, (WEIGHTS, CONFIG, TOKENIZER), kind="COTS model"):
            config = read_config(folder)
            model = cls.build(config, load_tokenizer(folder / TOKENIZER))
            weights = load_file(local_part(folder / WEIGHTS))
            for name, module in model.parts.items():
                state = {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")}
                module.load_state_dict(state)
        return model.to(default_device())

    @property
    def _encoders(self) -> tuple[Encoder, ...]:
        return self.image, self.text

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What has weights, by its name in the weights file."""
        head = {} if self.class_head is None else {"class_head": self.class_head}
        return {"image": self.image, "text": self.text, **head}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the head tells apart, sorted; none without a head."""
        return tuple(self.config["classifier"]["classes"]) if "classifier" in self.config else ()

    def set_class_head(self, head: ClassHead | None, *, classes: Sequence[str] = (), column: str = "") -> None:
        """Replace the classification head, or take it away.

        Args:
            head: on the CPU.
            classes: names of its classes; column: of the source, which holds them.
        """
        self.class_head = head
        self.config = {key: value for key, value in self.config.items() if key != "classifier"}
        if head:
            self.config |= {"classifier": {"column": column, "classes": list(classes)}}

    def with_image_size(self, size: int) -> Self:
        """A copy for images of another size; position embeddings are interpolated, no other weight changes.

        Args:
            size: pixels along a side, a multiple of the patch; the present size gives an equal model.

        Raises:
            BadInput: not a multiple of the patch.
        """
        image, text = copy.deepcopy((self.image, self.text))  # together: they may share blocks
        image.backbone.resize(size)
        config = self.config | {"image": self.config["image"] | {"size": size}}
        return type(self)(
            image=image, text=text, tokenizer=self.tokenizer, config=config, class_head=copy.deepcopy(self.class_head)
        )

    def save(self, folder: Path) -> None:
        """Write weights, config and tokenizer atomically; nothing is pickled."""
        assert self._digest is None, "the weights were converted by for_inference: save a freshly loaded model"
        weights = {f"{name}.{k}": v for name, part in self.parts.items() for k, v in part.state_dict().items()}
        weights |= {k: v.clone() for k, v in weights.items() if k.startswith("text.shared.")}
        save_model_folder(
            folder,
            weights=(WEIGHTS, weights),
            config=(CONFIG, self.config),
            tokenizer=self.tokenizer,
            metadata={DIGEST: self.digest},
        )

    @property
    def digest(self) -> str:
        """SHA-256 of weights and config: models with equal digests have equal embeddings."""
        if self._digest:
            return self._digest
        sha = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for part in self.parts.values():
            for name, value in part.state_dict().items():
                update_digest(sha, name, value)
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

    def class_probabilities(
        self, items: NDArray[np.float32] | None, texts: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """How probable the head finds each of the model's `classes`: (N, C), rows add up to 1.

        Args:
            items: (N, D) embeddings of images or videos; texts: (N, D) of their texts; one of the two may be None.
        """
        assert self.class_head, "the model has no classification head"
        given = next(rows for rows in (items, texts) if rows is not None)
        image, text = (torch.from_numpy(np.zeros_like(given) if rows is None else rows) for rows in (items, texts))
        with torch.inference_mode():
            probabilities: Tensor = self.class_head(image, text).both.softmax(dim=1)
        return probabilities.numpy()

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
