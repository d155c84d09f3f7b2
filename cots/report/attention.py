"""Attention maps: for a few captions, the patches relevant for the caption and for its most important words."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cots.data.samples import StoredSample
from cots.data.stored_samples import decode_frames
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.explain import Relevance, explain, overlay
from cots.evaluation.metrics import RankedQueries
from cots.models.dual_encoder import DualEncoder
from cots.report.inline_images import InlineImage

NUM_WORDS, SIDE = 2, 160  # words per caption; longer side of the images, pixels

StoredById = Callable[[Iterable[str]], dict[str, StoredSample]]


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """The maps of one caption.

    Attributes:
        text: the caption.
        rank: of the right item.
        similarity: of the pair.
        images: the image or video as it is, then with its map for the caption, then for single words; with labels.
    """

    text: str
    rank: int
    similarity: float
    images: list[tuple[InlineImage, str]]


def attention_maps(
    model: DualEncoder,
    embedded: EmbeddedSplit,
    queries: RankedQueries,
    read_by_id: StoredById,
    *,
    count: int,
    seed: int,
) -> list[AttentionMap]:
    """Maps of random captions with rank 1, and of others if there are too few.

    Args:
        model: that embedded the split.
        embedded: the split.
        queries: texts to items.
        read_by_id: reads samples by id.
        count: maximum number of captions, each of a different item.
        seed: of their choice.
    """
    order = np.random.default_rng(seed).permutation(len(queries.ranks))
    order = order[np.argsort(queries.ranks[order] > 1, kind="stable")]
    _, first = np.unique(queries.query_to_item[order], return_index=True)
    rows = order[np.sort(first)][:count]
    samples = read_by_id({embedded.ids[queries.query_to_item[row]] for row in rows})
    return [
        _map_caption(model, embedded.captions[row], int(queries.ranks[row]), decode_frames(samples[embedded.ids[item]]))
        for row, item in zip(rows, queries.query_to_item[rows], strict=True)
    ]


def _map_caption(model: DualEncoder, text: str, rank: int, frames: Sequence[Image.Image]) -> AttentionMap:
    whole, *words = explain(model, frames, text)
    top_words = sorted(words, key=lambda word: -word.similarity)[:NUM_WORDS]
    original = InlineImage.of_frames(frames, "as it is", side=SIDE)
    of_words = [(_overlay_frames(frames, word, f"patches relevant for: {word.text}"), word.text) for word in top_words]
    of_caption = _overlay_frames(frames, whole, "patches relevant for the caption")
    images = [(original, "as it is"), (of_caption, "whole caption"), *of_words]
    return AttentionMap(text, rank, whole.similarity, images)


def _overlay_frames(frames: Sequence[Image.Image], relevance: Relevance, alt: str) -> InlineImage:
    max_relevance = float(relevance.patches.max())
    overlays = [
        overlay(frame, patches, max_relevance=max_relevance)
        for frame, patches in zip(frames, relevance.patches, strict=True)
    ]
    return InlineImage.of_frames(overlays, alt, side=SIDE)
