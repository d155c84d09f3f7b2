"""Explains a similarity: which patches of an image make it match a text, and each word of the text."""

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
    """Relevance of the patches for the similarity to a text, or for what one of its words adds to it.

    Attributes:
        text: the whole text, or the word as it is written there.
        similarity: cosine of image and text in [-1, 1]; for a word, how much the cosine drops if the word is masked.
        patches: (T, G, G) for T frames, rows from the top, >= 0; not comparable between texts.
    """

    text: str
    similarity: float
    patches: NDArray[np.float32]


def explain(model: DualEncoder, frames: Sequence[Image.Image], text: str) -> list[Relevance]:
    """Relevance of the patches for a text and for each of its words.

    The query vector of a word is what the word adds: the text's embedding minus that of the text with the word's tokens
    replaced by [MASK], as in masked language modelling, or by padding if the tokenizer has no [MASK], as CLIP's. Words
    beyond the model's `max_tokens` are left out.

    Args:
        model: stays as it is: modes, gradients and weights.
        frames: of one video, or one image.
        text: not blank.

    Returns:
        First for the whole text, then for its words in their order.
    """
    words, embeddings = _embed_with_words_masked(model, text)
    queries = torch.cat([embeddings[:1], embeddings[0] - embeddings[1:]])  # (1 + words, D)
    similarities, patches = patch_relevance(model.image, _pixels(model, frames), queries)
    return [
        Relevance(*columns)
        for columns in zip([text, *words], similarities.tolist(), patches.cpu().numpy(), strict=True)
    ]


def patch_relevance(encoder: ImageEncoder, pixels: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient-weighted attention rollout of one video, for several query vectors.

        R = I;  for each block, in order: R <- R + mean over heads of max(dS/dA * A, 0) @ R

    with the attention A of the block and the similarity S. The relevance of a patch is its entry of R - I in the row
    that is pooled: the row of the class token, or the mean of the patches' rows, also where attention pools them.

    Args:
        encoder: with or without fused attention; runs in evaluation mode and float32.
        pixels: (T, 3, H, W), normalized.
        queries: (Q, D), of any norm.

    Returns:
        (Q,) products of the video's unit embedding with the queries; (Q, T, G, G) relevances, >= 0.

    Source: Generic Attention-model Explainability, arXiv:2103.15679, eq. 5 and 6; the row of mean pooling is ours.
    """
    attentions: list[Tensor] = []
    with _record_attention(encoder, attentions), torch.enable_grad():
        # The pixels require gradients, so that the attention has gradients even if all weights are frozen.
        similarities = queries @ encoder(pixels.detach()[None].requires_grad_())[0]  # (Q,)
        gradients = [torch.autograd.grad(similarity, attentions, retain_graph=True) for similarity in similarities]
    depth = len(encoder.backbone.blocks)
    by_block = _join_micro_batches(attentions, depth)
    rows = torch.stack(
        [_roll_out(encoder, by_block, _join_micro_batches(gradient, depth)) for gradient in gradients]
    )  # (Q, T, N)
    side = round(rows.shape[-1] ** 0.5)
    return similarities.detach(), rows.view(*rows.shape[:2], side, side)


def _join_micro_batches(recorded: Sequence[Tensor], depth: int) -> list[Tensor]:
    """For each block (T, H, L, L), all frames; the encoder may have run through its blocks once per micro-batch."""
    return [torch.cat(list(recorded[block::depth])) for block in range(depth)]


def _roll_out(encoder: ImageEncoder, attentions: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    identity = torch.eye(attentions[0].shape[-1], device=attentions[0].device)
    rollout = identity.expand(len(attentions[0]), -1, -1)  # (T, L, L)
    for attention, gradient in zip(attentions, gradients, strict=True):
        rollout = rollout + (attention.detach() * gradient).clamp(min=0).mean(dim=1) @ rollout
    added, prefix = rollout - identity, encoder.backbone.num_prefix_tokens
    pooled = added[:, 0] if encoder.pool == "class" else added[:, prefix:].mean(dim=1)
    return pooled[:, prefix:]


@contextmanager
def eval_mode(encoder: torch.nn.Module) -> Iterator[None]:
    """Run in evaluation mode; afterwards every module has its former mode."""
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _record_attention(encoder: ImageEncoder, attentions: list[Tensor]) -> Iterator[None]:
    """Run in evaluation mode and append each block's attention weights; fused attention, which has none, is off."""
    blocks = encoder.backbone.attentions
    was_fused = [attention.fused_attn for attention in blocks]
    hooks = [
        attention.attn_drop.register_forward_hook(lambda *arguments: attentions.append(arguments[-1]))
        for attention in blocks
    ]
    try:
        for attention in blocks:
            attention.fused_attn = False
        with eval_mode(encoder):
            yield
    finally:
        for attention, fused in zip(blocks, was_fused, strict=True):
            attention.fused_attn = fused
        for hook in hooks:
            hook.remove()


def _embed_with_words_masked(model: DualEncoder, text: str) -> tuple[list[str], Tensor]:
    """The words, and embeddings (1 + words, D) of the text and of the text with each word masked."""
    tokenizer, limit = model.tokenizer, model.config["text"]["max_tokens"]
    [encoding] = tokenizer([text], truncation=True, max_length=limit).encodings
    word_of_token = [-1 if word is None else word for word in encoding.word_ids]
    spans = {word: encoding.word_to_chars(word) for word in sorted(set(word_of_token) - {-1})}
    words = {word: text[slice(*span)] for word, span in spans.items() if any(map(str.isalnum, text[slice(*span)]))}
    mask_token = tokenizer.pad_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
    texts = [
        [mask_token if at == word else token for token, at in zip(encoding.ids, word_of_token, strict=True)]
        for word in (None, *words)
    ]
    with eval_mode(model.text), torch.no_grad():
        embeddings = model.embed_token_ids(texts)
    return list(words.values()), embeddings


def _pixels(model: DualEncoder, frames: Sequence[Image.Image]) -> Tensor:
    """(T, 3, H, W), preprocessed as in evaluation."""
    config = model.config["image"]
    resized = np.stack([resize_squash(frame, config["size"]) for frame in frames])
    device = model.image.projection.weight.device
    return normalize_pixels(resized, mean=config["mean"], std=config["std"], device=device)


def overlay(image: Image.Image, patches: NDArray[np.float32], *, max_relevance: float) -> Image.Image:
    """The image with relevant patches reddened and all others darkened.

    Args:
        image: of any size.
        patches: (G, G) relevances, >= 0.
        max_relevance: shown at full strength; the same for all images that are compared.
    """
    relative = np.clip(patches / max(max_relevance, 1e-12), 0, 1)
    smooth = Image.fromarray((255 * relative).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    strength = np.asarray(smooth, dtype=np.float32)[..., None] / 255
    darkened = np.asarray(image.convert("RGB"), dtype=np.float32) * (0.35 + 0.65 * strength)
    red = np.array([255.0, 40.0, 0.0], dtype=np.float32) * 0.45 * strength**2
    return Image.fromarray(np.clip(darkened + red, 0, 255).astype(np.uint8))
