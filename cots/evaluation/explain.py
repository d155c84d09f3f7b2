"""Where a picture agrees with a text, and with each of its words: relevance of the patches for the similarity."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cots.data.resizing import resize_squash
from cots.models.dual_encoder import DualEncoder
from cots.models.encoder import ImageEncoder
from cots.models.pixels import normalize_pixels


@dataclass(frozen=True, slots=True)
class Relevance:
    """Which patches speak for a text, or for what one of its words adds to it.

    Attributes:
        text: the whole text, or the word as it is written there.
        similarity: cosine of picture and text in [-1, 1]; of a word, what the text loses of it when the word is hidden.
        patches: (T, G, G) of T frames, rows from the top, >= 0; they compare within one text, not between two.
    """

    text: str
    similarity: float
    patches: NDArray[np.float32]


def explain(model: DualEncoder, frames: Sequence[Image.Image], text: str) -> list[Relevance]:
    """Relevance of the patches for a text and for each of its words.

    A word is asked with what it adds: the text's vector less that of the text with the word's tokens as [MASK], which
    is how the token level hides words. Words beyond the model's `max_tokens` are left out.

    Args:
        model: both streams; flags, gradients and weights stay as they are.
        frames: of one clip, or one picture.
        text: not blank.

    Returns:
        Of the whole text, then of its words in their order.
    """
    words, features = _with_and_without(model, text)
    asked = torch.cat([features[:1], features[0] - features[1:]])  # (1 + words, D)
    similarities, patches = patch_relevance(model.image, _pixels(model, frames), asked)
    return [
        Relevance(*found) for found in zip([text, *words], similarities.tolist(), patches.cpu().numpy(), strict=True)
    ]


def patch_relevance(stream: ImageEncoder, pixels: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient-weighted attention rollout of one clip, for several vectors in the shared space.

        R = I;  for each block, in order: R <- R + mean over heads of max(dS/dA * A, 0) @ R

    with the attention A of the block and the similarity S. The relevance of a patch is its entry of R - I in the row
    of what is pooled: that of the class token, or the mean of the patches' rows.

    Args:
        stream: with or without fused attention; evaluated as in service, in float32.
        pixels: (T, 3, H, W), normalised.
        asked: (Q, D), of any length.

    Returns:
        (Q,) products of the clip's unit vector with `asked`; (Q, T, G, G) relevances, >= 0.

    Source: Generic Attention-model Explainability, arXiv:2103.15679, eq. 5 and 6; the row of mean pooling is ours.
    """
    attentions: list[Tensor] = []
    with _plain_attention(stream, attentions), torch.enable_grad():
        # The pixels ask for gradients, so that the attention has some even where all weights are frozen.
        similarities = asked @ stream(pixels.detach()[None].requires_grad_())[0]  # (Q,)
        gradients = [torch.autograd.grad(one, attentions, retain_graph=True) for one in similarities]
    depth = len(stream.backbone.blocks)
    whole = _by_block(attentions, depth)
    rows = torch.stack([_rolled_out(stream, whole, _by_block(gradient, depth)) for gradient in gradients])  # (Q, T, N)
    side = round(rows.shape[-1] ** 0.5)
    return similarities.detach(), rows.view(*rows.shape[:2], side, side)


def _by_block(found: Sequence[Tensor], depth: int) -> list[Tensor]:
    """Of each block (T, H, L, L): all frames, which may have gone through the blocks piece after piece."""
    return [torch.cat(list(found[block::depth])) for block in range(depth)]


def _rolled_out(stream: ImageEncoder, attentions: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    identity = torch.eye(attentions[0].shape[-1], device=attentions[0].device)
    rollout = identity.expand(len(attentions[0]), -1, -1)  # (T, L, L)
    for attention, gradient in zip(attentions, gradients, strict=True):
        rollout = rollout + (attention.detach() * gradient).clamp(min=0).mean(dim=1) @ rollout
    added, prefix = rollout - identity, stream.backbone.num_prefix_tokens
    pooled = added[:, 0] if stream.pool == "class" else added[:, prefix:].mean(dim=1)
    return pooled[:, prefix:]


@contextmanager
def evaluated(stream: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets its own mode back."""
    modes = {module: module.training for module in stream.modules()}
    stream.eval()
    try:
        yield
    finally:
        for module, was in modes.items():
            module.training = was


@contextmanager
def _plain_attention(stream: ImageEncoder, attentions: list[Tensor]) -> Iterator[None]:
    """Evaluation with the attention weights of every block collected: fused attention never has them in memory."""
    blocks = stream.backbone.attentions
    fused = [attention.fused_attn for attention in blocks]
    hooks = [
        attention.attn_drop.register_forward_hook(lambda *passed: attentions.append(passed[-1])) for attention in blocks
    ]
    try:
        for attention in blocks:
            attention.fused_attn = False
        with evaluated(stream):
            yield
    finally:
        for attention, was in zip(blocks, fused, strict=True):
            attention.fused_attn = was
        for hook in hooks:
            hook.remove()


def _with_and_without(model: DualEncoder, text: str) -> tuple[list[str], Tensor]:
    """The words, and unit rows (1 + words, D): of the text, and of it with each word hidden."""
    tokenizer, limit = model.tokenizer, model.config["text"]["max_tokens"]
    [encoding] = tokenizer([text], truncation=True, max_length=limit).encodings
    belongs = [-1 if word is None else word for word in encoding.word_ids]
    spans = {word: encoding.word_to_chars(word) for word in sorted(set(belongs) - {-1})}
    words = {word: text[slice(*span)] for word, span in spans.items() if any(map(str.isalnum, text[slice(*span)]))}
    ids = torch.tensor(encoding.ids).repeat(1 + len(words), 1)
    for row, word in enumerate(words, start=1):
        ids[row, torch.tensor(belongs) == word] = tokenizer.mask_token_id
    where = model.text.projection.weight.device
    with evaluated(model.text), torch.no_grad():
        features = model.text(ids.to(where), torch.ones_like(ids, dtype=torch.bool).to(where))
    return list(words.values()), features


def _pixels(model: DualEncoder, frames: Sequence[Image.Image]) -> Tensor:
    """(T, 3, H, W), as the image stream sees them in evaluation."""
    vision = model.config["image"]
    cut = np.stack([resize_squash(frame, vision["size"]) for frame in frames])
    return normalize_pixels(cut, mean=vision["mean"], std=vision["std"], device=model.image.projection.weight.device)


def overlay(picture: Image.Image, patches: NDArray[np.float32], *, most: float) -> Image.Image:
    """The picture, darkened where patches do not speak for the text and reddened where they do.

    Args:
        picture: of any size.
        patches: (G, G) relevances, >= 0.
        most: the relevance that is shown strongest; one value for all pictures that are compared.
    """
    share = np.clip(patches / max(most, 1e-12), 0, 1)
    smooth = Image.fromarray((255 * share).astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    strength = np.asarray(smooth, dtype=np.float32)[..., None] / 255
    dim = np.asarray(picture.convert("RGB"), dtype=np.float32) * (0.35 + 0.65 * strength)
    glow = np.array([255.0, 40.0, 0.0], dtype=np.float32) * 0.45 * strength**2
    return Image.fromarray(np.clip(dim + glow, 0, 255).astype(np.uint8))
