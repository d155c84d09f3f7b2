"""The single-stream baseline: one transformer scores each pair from the image's patches and the text's tokens.

Except for the patch embedding, nothing can be encoded before the pair is known: N images and M texts cost N M passes,
where two streams take N + M. It is used for re-ranking the nearest candidates of two streams, and for comparison.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
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
from cots.data.resizing import resize_squash
from cots.data.token_batch import tokenize
from cots.data.tokenizer import load_tokenizer
from cots.devices import autocast, default_device
from cots.errors import BadInput
from cots.models.dual_encoder import DualEncoder
from cots.models.encoder import Pool
from cots.models.hf_text import HfTextBackbone
from cots.models.model_folder import TOKENIZER, model_load_errors, save_model_folder
from cots.models.pixels import normalize_pixels
from cots.models.vit import VitBackbone

WEIGHTS, CONFIG = "cross_encoder.safetensors", "cross_encoder.json"


class SingleStreamEncoder(nn.Module):
    """Encodes image and text as one sequence by the blocks of a vision transformer, and scores the pair.

        logit = head(pool(blocks([patches + kind_image, tokens + kind_text])))

    The head starts at zero: untrained, it gives every pair the probability 1/2.

    Args:
        vision: its patch embedding, position embeddings, blocks and last norm are used.
        language: its token embeddings, with their positions, are used; its layers are not.
        pool: the head's input: the class token ("class") or the mean of all patches and tokens ("mean").

    Raises:
        BadInput: the text backbone has no position embeddings; without its layers, the order of tokens would be lost.

    Source: ViLT, arXiv:2102.03334, section 3.1.
    """

    def __init__(self, vision: VitBackbone, language: HfTextBackbone, *, pool: Pool) -> None:
        super().__init__()
        if language.max_tokens is None:
            raise BadInput(f"model.text: {language.name} has no position embeddings, which a single stream needs")
        self.vision, self.token_embeddings, self.pool = vision, language.encoder.embeddings, pool
        embedded: int = language.encoder.get_input_embeddings().embedding_dim  # not the layers' width in ALBERT
        self.align = nn.Linear(embedded, vision.width, bias=False)
        self.kinds = nn.Parameter(torch.empty(2, vision.width))
        self.head = nn.Linear(vision.width, 1)
        nn.init.trunc_normal_(self.kinds, std=0.02)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def reset_blocks(self) -> None:
        """Initialize the blocks again, by their width.

        For encoders trained from scratch: timm's standard deviation of 0.02 suits 768 channels, and in narrow blocks
        initialized with it the tokens hardly affect the class token. Pretrained blocks are worth keeping.
        """
        for module in self.vision.vit.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, frames: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Score B pairs.

        Args:
            frames: (B, T, 3, H, W), normalized; an image is a video of one frame.
            input_ids: (B, L) tokens.
            attention_mask: (B, L) bool, False = padding.

        Returns:
            (B,) logits that the text describes the image.
        """
        return self.score_pairs(self.patches(frames), input_ids, attention_mask)

    def patches(self, frames: Tensor) -> Tensor:
        """The image half of the sequence, which does not depend on the text.

        Args:
            frames: (B, T, 3, H, W).

        Returns:
            (B, T (prefix + N), W), frame after frame.
        """
        vit = self.vision.vit
        embedded: Tensor = vit._pos_embed(vit.patch_embed(frames.flatten(0, 1)))
        return embedded.reshape(len(frames), -1, self.vision.width) + self.kinds[0]

    def score_pairs(self, patches: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The joint passes: (B, P, W) patches and (B, L) tokens to (B,) logits."""
        vit = self.vision.vit
        text = self.align(self.token_embeddings(input_ids=input_ids)) + self.kinds[1]
        tokens = vit.norm_pre(torch.cat([patches, text], dim=1))
        mask = torch.cat([attention_mask.new_ones(patches.shape[:2]), attention_mask], dim=1)  # (B, P + L)
        for block in vit.blocks:
            tokens = block(tokens, attn_mask=mask[:, None, None])
        pooled = self._pool(vit.fc_norm(vit.norm(tokens)), mask)
        logits: Tensor = self.head(pooled)[:, 0]
        return logits

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.pool == "class":
            return tokens[:, 0]
        weight = mask.to(tokens.dtype)
        return torch.einsum("blw,bl->bw", tokens, weight / weight.sum(dim=1, keepdim=True))


class CrossEncoder:
    """A single-stream encoder with tokenizer and preprocessing, as `DualEncoder` is for two streams.

    Args:
        joint: the network.
        tokenizer: of its texts.
        config: that of the dual encoder whose shapes it has.
    """

    def __init__(
        self, *, joint: SingleStreamEncoder, tokenizer: PreTrainedTokenizerBase, config: dict[str, Any]
    ) -> None:
        self.joint, self.tokenizer, self.config = joint, tokenizer, config

    @classmethod
    def of(cls, model: DualEncoder) -> Self:
        """Start from a dual encoder: copy its patch and token embeddings and the blocks of its vision transformer."""
        vision, language = copy.deepcopy(model.image.backbone), copy.deepcopy(model.text.backbone)
        assert isinstance(vision, VitBackbone)
        assert isinstance(language, HfTextBackbone)
        joint = SingleStreamEncoder(vision, language, pool=model.config["image"]["pool"])
        return cls(joint=joint, tokenizer=model.tokenizer, config=model.config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a folder that `save` wrote.

        Raises:
            BadInput: the folder is not such a model, or its weights do not fit its config.
        """
        with model_load_errors(folder, (WEIGHTS, CONFIG, TOKENIZER), kind="cross-encoder"):
            config = json.loads((folder / CONFIG).read_text(encoding="utf8"))
            model = cls.of(DualEncoder.build(config, load_tokenizer(folder / TOKENIZER)))
            model.joint.load_state_dict(load_file(folder / WEIGHTS))
        model.joint.to(default_device())
        return model

    def save(self, folder: Path) -> None:
        """Write weights, config and tokenizer atomically; nothing is pickled."""
        weights = (WEIGHTS, self.joint.state_dict())
        save_model_folder(folder, weights=weights, config=(CONFIG, self.config), tokenizer=self.tokenizer)

    def score(
        self, images: Iterable[Image.Image], texts: Sequence[str], pairs: NDArray[np.int64], *, batch_size: int
    ) -> NDArray[np.float32]:
        """Score some of all pairs of images and texts.

        Args:
            images: all of them, RGB, of any size; `batch_size` are held at a time.
            texts: all of them; truncated to `max_tokens`.
            pairs: (P, 2) rows of image and text, ascending by image.
            batch_size: pairs scored at once.

        Returns:
            (P,) logits, in the order of `pairs`.
        """
        self.joint.eval()
        with torch.inference_mode(), autocast(self.joint.kinds.device):
            parts = [part.float().cpu().numpy() for part in self._score_chunks(images, texts, pairs, batch_size)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)

    def _score_chunks(
        self, images: Iterable[Image.Image], texts: Sequence[str], pairs: NDArray[np.int64], batch_size: int
    ) -> Iterator[Tensor]:
        for number, chunk in enumerate(batched(images, batch_size)):
            first = number * batch_size
            start, stop = np.searchsorted(pairs[:, 0], [first, first + len(chunk)])
            patches = self._patches(chunk)
            for part in batched(pairs[start:stop].tolist(), batch_size):
                input_ids, attention_mask = self._tokens([texts[text] for _, text in part])
                yield self.joint.score_pairs(patches[[image - first for image, _ in part]], input_ids, attention_mask)

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        tokens = tokenize(self.tokenizer, texts, max_tokens=self.config["text"]["max_tokens"])
        device = self.joint.kinds.device
        return torch.from_numpy(tokens.input_ids).to(device), torch.from_numpy(tokens.attention_mask).to(device)

    def _patches(self, images: list[Image.Image]) -> Tensor:
        image_config = self.config["image"]
        pixels = np.stack([resize_squash(image, image_config["size"]) for image in images])[:, None]  # (B, 1, H, W, 3)
        device = self.joint.kinds.device
        return self.joint.patches(
            normalize_pixels(pixels, mean=image_config["mean"], std=image_config["std"], device=device)
        )
