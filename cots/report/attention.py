"""Where the model looks: for a few captions, the patches that speak for them and for their weightiest words."""

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
from cots.report.pictures import Picture

WORDS, SIDE = 2, 160

StoredById = Callable[[Iterable[str]], dict[str, StoredSample]]


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """One caption with its picture or clip.

    Attributes:
        text: the caption.
        rank: of the right item.
        similarity: of the pair.
        pictures: the item as it is, then under the caption, then under single words; each with what it shows.
    """

    text: str
    rank: int
    similarity: float
    pictures: list[tuple[Picture, str]]


def attention_maps(
    model: DualEncoder, embedded: EmbeddedSplit, direction: RankedQueries, stored: StoredById, *, count: int, seed: int
) -> list[AttentionMap]:
    """The maps of some captions that are answered at once, or of any where none is.

    Args:
        model: whose vectors `embedded` holds.
        embedded: the split.
        direction: texts to items.
        stored: the samples by id.
        count: captions shown, at most; of different items.
        seed: of their choice.
    """
    order = np.random.default_rng(seed).permutation(len(direction.ranks))
    order = order[np.argsort(direction.ranks[order] > 1, kind="stable")]
    _, first = np.unique(direction.text_to_item[order], return_index=True)
    chosen = order[np.sort(first)][:count]
    samples = stored({embedded.ids[direction.text_to_item[row]] for row in chosen})
    return [
        _look(model, embedded.captions[row], int(direction.ranks[row]), decode_frames(samples[embedded.ids[owner]]))
        for row, owner in zip(chosen, direction.text_to_item[chosen], strict=True)
    ]


def _look(model: DualEncoder, text: str, rank: int, frames: Sequence[Image.Image]) -> AttentionMap:
    whole, *words = explain(model, frames, text)
    weightiest = sorted(words, key=lambda word: -word.similarity)[:WORDS]
    plain = Picture.of_frames(frames, "as it is", side=SIDE)
    drawn = [(_drawn(frames, found, f"patches that speak for: {found.text}"), found.text) for found in weightiest]
    return AttentionMap(
        text,
        rank,
        whole.similarity,
        [(plain, "as it is"), (_drawn(frames, whole, "patches that speak for the caption"), "whole caption"), *drawn],
    )


def _drawn(frames: Sequence[Image.Image], found: Relevance, alt: str) -> Picture:
    most = float(found.patches.max())
    shown = [overlay(frame, patches, most=most) for frame, patches in zip(frames, found.patches, strict=True)]
    return Picture.of_frames(shown, alt, side=SIDE)
