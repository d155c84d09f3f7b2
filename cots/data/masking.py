"""Masks of the token level: blocks of image patches, and single tokens of texts."""

import math

import numpy as np
from numpy.typing import NDArray


def random_block_mask(
    rng: np.random.Generator, num_images: int, *, grid: int, num_masked: int, min_block: int
) -> NDArray[np.bool_]:
    """Mask exactly `num_masked` patches of each image, in rectangular blocks.

    Blocks of at least `min_block` patches and aspect ratio 0.3 to 1/0.3 are placed until there are enough masked
    patches. Surplus patches of the last block are unmasked at random, so every image has the same number of masked
    patches. All images get their next block at once: a loop over images takes several times as long and holds the GIL.

    Args:
        rng: the random generator.
        num_images: how many images (B).
        grid: patches along a side of an image.
        num_masked: patches to mask, 0 to grid * grid.
        min_block: minimum number of patches in a block.

    Returns:
        (B, grid * grid) bool in row-major order, True = masked.

    Source: BEiT, arXiv:2106.08254, algorithm 1, which may mask fewer patches than asked.
    """
    masked = np.zeros((num_images, grid, grid), dtype=bool)
    remaining = np.full(num_images, num_masked)
    while len(unfinished := np.flatnonzero(remaining)):
        needed = remaining[unfinished]
        area = rng.uniform(np.minimum(min_block, needed), np.maximum(min_block, needed))
        aspect = np.exp(rng.uniform(math.log(0.3), -math.log(0.3), len(unfinished)))
        rows = _random_spans(rng, np.sqrt(area * aspect), grid)
        columns = _random_spans(rng, np.sqrt(area / aspect), grid)
        new = rows[:, :, None] & columns[:, None, :] & ~masked[unfinished]
        too_many = new.sum(axis=(1, 2)) > needed
        candidates = new[too_many].reshape(-1, grid * grid)
        order = np.where(candidates, rng.random(candidates.shape), np.inf).argsort(axis=1).argsort(axis=1)
        new[too_many] = (order < needed[too_many, None]).reshape(-1, grid, grid)
        masked[unfinished] |= new
        remaining[unfinished] -= new.sum(axis=(1, 2))
    return masked.reshape(num_images, grid * grid)


def _random_spans(rng: np.random.Generator, lengths: NDArray[np.float64], grid: int) -> NDArray[np.bool_]:
    """(B, grid): in each row a run of True at a random place, of about `lengths`, at least 1 and at most `grid`."""
    whole = np.clip(np.rint(lengths), 1, grid).astype(np.int64)
    start = rng.integers(grid - whole + 1)
    positions = np.arange(grid)
    return (positions >= start[:, None]) & (positions < (start + whole)[:, None])


def mask_tokens(
    rng: np.random.Generator,
    input_ids: NDArray[np.int64],
    maskable: NDArray[np.bool_],
    *,
    probability: float,
    mask_token: int,
    vocab_size: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Select tokens to predict: 80 % of them become [MASK], 10 % a random token, 10 % stay as they are.

    Args:
        rng: the random generator.
        input_ids: (B, L) token ids.
        maskable: (B, L), False at padding and special tokens.
        probability: fraction of the maskable tokens of a text; at least one token if there is any.
        mask_token: id of [MASK].
        vocab_size: number of token ids.

    Returns:
        Corrupted ids (B, L), and which of them are to be predicted, (B, L) bool.

    Source: BERT, arXiv:1810.04805, section 3.1.
    """
    draw = np.where(maskable, rng.random(input_ids.shape), np.inf)
    count = np.maximum(np.round(probability * maskable.sum(axis=1)), 1) * maskable.any(axis=1)
    selected = (draw.argsort(axis=1).argsort(axis=1) < count[:, None]) & maskable
    action = rng.random(input_ids.shape)
    corrupted = np.where(selected & (action < 0.8), mask_token, input_ids)
    random_ids = rng.integers(0, vocab_size, input_ids.shape)
    return np.where(selected & (action >= 0.8) & (action < 0.9), random_ids, corrupted), selected
