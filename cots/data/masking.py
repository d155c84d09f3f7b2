"""What the token level hides: blocks of patches, and single words."""

import math

import numpy as np
from numpy.typing import NDArray


def random_block_mask(
    rng: np.random.Generator, num_images: int, *, grid: int, count: int, block: int
) -> NDArray[np.bool_]:
    """Hide exactly `count` patches of each picture, in rectangular blocks.

    Blocks of `block` patches or more, aspect 0.3 to 1/0.3, are placed until `count` is reached; patches of the last
    block beyond it are uncovered again at random, so that every mask hides the same number and shapes stay fixed.
    All pictures get a block at once: one after another takes several times as long, and holds Python's lock.

    Args:
        rng: where the randomness comes from.
        pictures: how many (B).
        grid: patches along a side.
        count: hidden patches, 0 to grid * grid.
        block: patches of the smallest block.

    Returns:
        (B, grid * grid) bool in row order, True = hidden.

    Source: BEiT, arXiv:2106.08254, algorithm 1, which may come up short; this one does not.
    """
    masked = np.zeros((num_images, grid, grid), dtype=bool)
    missing = np.full(num_images, count)
    while len(short := np.flatnonzero(missing)):
        left = missing[short]
        area = rng.uniform(np.minimum(block, left), np.maximum(block, left))
        aspect = np.exp(rng.uniform(math.log(0.3), -math.log(0.3), len(short)))
        rows = _spans(rng, np.sqrt(area * aspect), grid)
        columns = _spans(rng, np.sqrt(area / aspect), grid)
        fresh = rows[:, :, None] & columns[:, None, :] & ~masked[short]
        beyond = fresh.sum(axis=(1, 2)) > left
        candidates = fresh[beyond].reshape(-1, grid * grid)
        order = np.where(candidates, rng.random(candidates.shape), np.inf).argsort(axis=1).argsort(axis=1)
        fresh[beyond] = (order < left[beyond, None]).reshape(-1, grid, grid)
        masked[short] |= fresh
        missing[short] -= fresh.sum(axis=(1, 2))
    return masked.reshape(num_images, grid * grid)


def _spans(rng: np.random.Generator, lengths: NDArray[np.float64], grid: int) -> NDArray[np.bool_]:
    """(B, grid): a run of about `lengths` places somewhere in each row, at least one place and at most all."""
    whole = np.clip(np.rint(lengths), 1, grid).astype(np.int64)
    start = rng.integers(grid - whole + 1)
    places = np.arange(grid)
    return (places >= start[:, None]) & (places < (start + whole)[:, None])


def mask_tokens(
    rng: np.random.Generator,
    ids: NDArray[np.int64],
    maskable: NDArray[np.bool_],
    *,
    probability: float,
    mask: int,
    vocab: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Hide words: of the chosen ones 80 % become [MASK], 10 % a random word, 10 % stay as they are.

    Args:
        rng: where the randomness comes from.
        ids: (B, L) token ids.
        maskable: (B, L) False at padding and special tokens.
        share: of the maskable words, at least one a text that has any.
        mask: id of [MASK]; vocab: number of token ids.

    Returns:
        The corrupted ids, (B, L), and which of them are to be predicted, (B, L) bool.

    Source: BERT, arXiv:1810.04805, section 3.1.
    """
    draw = np.where(maskable, rng.random(ids.shape), np.inf)
    count = np.maximum(np.round(probability * maskable.sum(axis=1)), 1) * maskable.any(axis=1)
    masked = (draw.argsort(axis=1).argsort(axis=1) < count[:, None]) & maskable
    fate = rng.random(ids.shape)
    corrupted = np.where(masked & (fate < 0.8), mask, ids)
    random = rng.integers(0, vocab, ids.shape)
    return np.where(masked & (fate >= 0.8) & (fate < 0.9), random, corrupted), masked
