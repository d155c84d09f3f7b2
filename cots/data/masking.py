"""Masks of the token level: blocks of image patches, and single tokens of texts."""

import math

import numpy as np
from numpy.typing import NDArray


def random_block_mask(
    rng: np.random.Generator,
    num_images: int,
    *,
    grid: int,
    num_masked: int,
    min_block: int,
    images: slice = slice(None),
) -> NDArray[np.bool_]:
    """Mask exactly `num_masked` patches of each image, in rectangular blocks.

    Blocks of at least `min_block` patches and aspect ratio 0.3 to 1/0.3 are placed until there are enough masked
    patches. Surplus patches of the last block are unmasked at random, so every image has the same number of masked
    patches. All images get their next block at once: a loop over images takes several times as long and holds the GIL.

    Args:
        rng: the random generator, used for nothing else: how far it gets depends on `images`.
        num_images: how many images (B).
        grid: patches along a side of an image.
        num_masked: patches to mask, 0 to grid * grid.
        min_block: minimum number of patches in a block.
        images: those to make masks of (S); numbers are drawn for all, so that the masks are those of the whole batch.

    Returns:
        (S, grid * grid) bool in row-major order, True = masked.

    Source: BEiT, arXiv:2106.08254, algorithm 1, which may mask fewer patches than asked.
    """
    scores = rng.random((num_images, grid * grid))[images]
    masked = np.zeros((len(scores), grid, grid), dtype=bool)
    remaining = np.full(len(scores), num_masked)
    while len(unfinished := np.flatnonzero(remaining)):
        needed = remaining[unfinished]
        for_area, for_aspect, for_row, for_column = rng.random((4, num_images))[:, images][:, unfinished]
        smallest, largest = np.minimum(min_block, needed), np.maximum(min_block, needed)
        area = smallest + for_area * (largest - smallest)
        aspect = np.exp((2 * for_aspect - 1) * -math.log(0.3))
        rows = _spans(for_row, np.sqrt(area * aspect), grid)
        columns = _spans(for_column, np.sqrt(area / aspect), grid)
        new = rows[:, :, None] & columns[:, None, :] & ~masked[unfinished]
        too_many = new.sum(axis=(1, 2)) > needed
        candidates = new[too_many].reshape(-1, grid * grid)
        order = np.where(candidates, scores[unfinished[too_many]], np.inf).argsort(axis=1).argsort(axis=1)
        new[too_many] = (order < needed[too_many, None]).reshape(-1, grid, grid)
        masked[unfinished] |= new
        remaining[unfinished] -= new.sum(axis=(1, 2))
    return masked.reshape(len(scores), grid * grid)


def _spans(uniform: NDArray[np.float64], lengths: NDArray[np.float64], grid: int) -> NDArray[np.bool_]:
    """(S, grid): in each row a run of True, of about `lengths`, at least 1 and at most `grid`, placed by [0, 1)."""
    whole = np.clip(np.rint(lengths), 1, grid).astype(np.int64)
    start = (uniform * (grid - whole + 1)).astype(np.int64)
    positions = np.arange(grid)
    return (positions >= start[:, None]) & (positions < (start + whole)[:, None])


def mask_tokens(
    uniform: NDArray[np.float64],
    input_ids: NDArray[np.int64],
    maskable: NDArray[np.bool_],
    *,
    probability: float,
    mask_token: int,
    vocab_size: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Select tokens to predict: 80 % of them become [MASK], 10 % a random token, 10 % stay as they are.

    Args:
        uniform: (3, B, L) numbers drawn from [0, 1).
        input_ids: (B, L) token ids.
        maskable: (B, L), False at padding and special tokens.
        probability: fraction of the maskable tokens of a text; at least one token if there is any.
        mask_token: id of [MASK].
        vocab_size: number of token ids.

    Returns:
        Corrupted ids (B, L), and which of them are to be predicted, (B, L) bool.

    Source: BERT, arXiv:1810.04805, section 3.1.
    """
    for_choice, action, for_id = uniform
    draw = np.where(maskable, for_choice, np.inf)
    count = np.maximum(np.round(probability * maskable.sum(axis=1)), 1) * maskable.any(axis=1)
    selected = (draw.argsort(axis=1).argsort(axis=1) < count[:, None]) & maskable
    corrupted = np.where(selected & (action < 0.8), mask_token, input_ids)
    random_ids = (for_id * vocab_size).astype(np.int64)
    return np.where(selected & (action >= 0.8) & (action < 0.9), random_ids, corrupted), selected
