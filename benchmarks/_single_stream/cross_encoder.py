"""The single-stream baseline: one transformer over a picture's patches and a text's words judges each pair.

Nothing of a pair can be encoded before the pair is known, the patch embedding aside: N pictures and M texts cost N M
passes, where two streams take N + M. What it is for: re-ranking the two streams' nearest candidates, and comparison.
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

WEIGHTS, SETTINGS = "cross_encoder.safetensors", "cross_encoder.json"


class SingleStreamEncoder(nn.Module):
    """A picture and a text in one sequence, through the vision transformer's own blocks, to one number.

        logit = head(pool(blocks([patches + kind_image, words + kind_text])))

    The head starts at zero: untrained, it calls every pair right with probability 1/2.

    Args:
        vision: its patch embedding, positions, blocks and last norm are used.
        language: its word embeddings, with their positions, are used; its layers are not.
        pool: what is judged: the class token ("class") or the mean of all patches and words ("mean").

    Raises:
        BadInput: the language model has no table of positions beside its words; without layers they would be a bag.

    Source: ViLT, arXiv:2102.03334, section 3.1.
    """

    def __init__(self, vision: VitBackbone, language: HfTextBackbone, *, pool: Pool) -> None:
        super().__init__()
        if language.max_tokens is None:
            raise BadInput(f"model.text: {language.name} has no position embeddings, which a single stream needs")
        self.vision, self.words, self.pool = vision, language.encoder.embeddings, pool
        embedded: int = language.encoder.get_input_embeddings().embedding_dim  # ALBERT's is not its layers' width
        self.align = nn.Linear(embedded, vision.width, bias=False)
        self.kinds = nn.Parameter(torch.empty(2, vision.width))
        self.head = nn.Linear(vision.width, 1)
        nn.init.trunc_normal_(self.kinds, std=0.02)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def reset_blocks(self) -> None:
        """Forget what the blocks have learnt, and draw their weights by their width.

        For streams trained from scratch: timm's deviation of 0.02 suits 768 channels, and narrow blocks that start
        with it hardly pass the words on to the class token. Pretrained blocks are worth keeping.
        """
        for module in self.vision.vit.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, frames: Tensor, ids: Tensor, attended: Tensor) -> Tensor:
        """Judge B pairs.

        Args:
            frames: (B, T, 3, H, W), normalised; pictures are clips of one frame.
            ids: (B, L) words.
            attended: (B, L) bool, False = padding.

        Returns:
            (B,) logits that the text describes the picture.
        """
        return self.judge(self.patches(frames), ids, attended)

    def patches(self, frames: Tensor) -> Tensor:
        """The image half of the sequence, all that a picture has before it meets a text.

        Args:
            frames: (B, T, 3, H, W).

        Returns:
            (B, T (prefix + N), W), frames side by side.
        """
        vit = self.vision.vit
        embedded: Tensor = vit._pos_embed(vit.patch_embed(frames.flatten(0, 1)))
        return embedded.reshape(len(frames), -1, self.vision.width) + self.kinds[0]

    def judge(self, patches: Tensor, ids: Tensor, attended: Tensor) -> Tensor:
        """The joint passes: (B, P, W) patches with (B, L) words to (B,) logits."""
        vit = self.vision.vit
        words = self.align(self.words(input_ids=ids)) + self.kinds[1]
        tokens = vit.norm_pre(torch.cat([patches, words], dim=1))
        seen = torch.cat([attended.new_ones(patches.shape[:2]), attended], dim=1)  # (B, P + L)
        for block in vit.blocks:
            tokens = block(tokens, attn_mask=seen[:, None, None])
        pooled = self._pooled(vit.fc_norm(vit.norm(tokens)), seen)
        logits: Tensor = self.head(pooled)[:, 0]
        return logits

    def _pooled(self, tokens: Tensor, seen: Tensor) -> Tensor:
        if self.pool == "class":
            return tokens[:, 0]
        weight = seen.to(tokens.dtype)
        return torch.einsum("blw,bl->bw", tokens, weight / weight.sum(dim=1, keepdim=True))


class CrossEncoder:
    """A joint encoder with tokenizer and preprocessing, as `RetrievalModel` is for two streams.

    Args:
        joint: the network.
        tokenizer: of its words.
        settings: those of the two-stream model whose shapes it has.
    """

    def __init__(
        self, *, joint: SingleStreamEncoder, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any]
    ) -> None:
        self.joint, self.tokenizer, self.settings = joint, tokenizer, settings

    @classmethod
    def of(cls, model: DualEncoder) -> Self:
        """Start from a two-stream model: copies of its patch and word embeddings and of its vision blocks."""
        vision, language = copy.deepcopy(model.image.backbone), copy.deepcopy(model.text.backbone)
        assert isinstance(vision, VitBackbone)
        assert isinstance(language, HfTextBackbone)
        joint = SingleStreamEncoder(vision, language, pool=model.config["image"]["pool"])
        return cls(joint=joint, tokenizer=model.tokenizer, settings=model.config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder as `save` writes it.

        Raises:
            BadInput: the folder is not such a model, or its weights do not fit its settings.
        """
        with model_load_errors(folder, (WEIGHTS, SETTINGS, TOKENIZER), kind="cross-encoder"):
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf8"))
            model = cls.of(DualEncoder.build(settings, load_tokenizer(folder / TOKENIZER)))
            model.joint.load_state_dict(load_file(folder / WEIGHTS))
        model.joint.to(default_device())
        return model

    def save(self, folder: Path) -> None:
        """Write weights, settings and tokenizer, aside first; nothing in it is pickled."""
        weights = (WEIGHTS, self.joint.state_dict())
        save_model_folder(folder, weights=weights, config=(SETTINGS, self.settings), tokenizer=self.tokenizer)

    def score(
        self, pictures: Iterable[Image.Image], texts: Sequence[str], pairs: NDArray[np.int64], *, batch_size: int
    ) -> NDArray[np.float32]:
        """Judge some of all pairs of pictures and texts.

        Args:
            pictures: all of them, RGB, of any size; `batch_size` are held at a time.
            texts: all of them; cut to `max_tokens`.
            pairs: (P, 2) rows of picture and text, ascending by picture.
            batch_size: pairs judged at once.

        Returns:
            (P,) logits, in the order of `pairs`.
        """
        self.joint.eval()
        with torch.inference_mode(), autocast(self.joint.kinds.device):
            parts = [part.float().cpu().numpy() for part in self._scored(pictures, texts, pairs, batch_size)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)

    def _scored(
        self, pictures: Iterable[Image.Image], texts: Sequence[str], pairs: NDArray[np.int64], batch_size: int
    ) -> Iterator[Tensor]:
        for number, chunk in enumerate(batched(pictures, batch_size)):
            first = number * batch_size
            start, stop = np.searchsorted(pairs[:, 0], [first, first + len(chunk)])
            patches = self._patches(chunk)
            for part in batched(pairs[start:stop].tolist(), batch_size):
                ids, attended = self._words([texts[text] for _, text in part])
                yield self.joint.judge(patches[[picture - first for picture, _ in part]], ids, attended)

    def _words(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        words = tokenize(self.tokenizer, texts, max_tokens=self.settings["text"]["max_tokens"])
        where = self.joint.kinds.device
        return torch.from_numpy(words.input_ids).to(where), torch.from_numpy(words.attention_mask).to(where)

    def _patches(self, pictures: list[Image.Image]) -> Tensor:
        vision = self.settings["image"]
        pixels = np.stack([resize_squash(picture, vision["size"]) for picture in pictures])[:, None]  # (B, 1, H, W, 3)
        where = self.joint.kinds.device
        return self.joint.patches(normalize_pixels(pixels, mean=vision["mean"], std=vision["std"], device=where))
