"""What the token level hides: blocks of patches, and single words."""

import math

import numpy as np
from numpy.typing import NDArray


def block_mask(rng: np.random.Generator, *, grid: int, count: int, block: int) -> NDArray[np.bool_]:
    """Hide exactly `count` patches, in rectangular blocks.

    Blocks of `block` patches or more, aspect 0.3 to 1/0.3, are placed until `count` is reached; patches of the last
    block beyond it are uncovered again at random, so that every mask hides the same number and shapes stay fixed.

    Args:
        rng: where the randomness comes from.
        grid: patches along a side.
        count: hidden patches, 0 to grid * grid.
        block: patches of the smallest block.

    Returns:
        (grid * grid,) bool in row order, True = hidden.

    Source: BEiT, arXiv:2106.08254, algorithm 1, which may come up short; this one does not.
    """
    masked = np.zeros((grid, grid), dtype=bool)
    missing = count
    while missing > 0:
        area = rng.uniform(min(block, missing), max(block, missing))
        aspect = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
        height = min(max(round(math.sqrt(area * aspect)), 1), grid)
        width = min(max(round(math.sqrt(area / aspect)), 1), grid)
        top, left = rng.integers(grid - height + 1), rng.integers(grid - width + 1)
        window = masked[top : top + height, left : left + width]
        fresh = np.flatnonzero(~window)
        chosen = fresh if len(fresh) <= missing else rng.choice(fresh, missing, replace=False)
        window[np.unravel_index(chosen, window.shape)] = True
        missing -= len(chosen)
    return masked.ravel()


def mask_words(
    rng: np.random.Generator,
    ids: NDArray[np.int64],
    maskable: NDArray[np.bool_],
    *,
    share: float,
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
    count = np.maximum(np.round(share * maskable.sum(axis=1)), 1) * maskable.any(axis=1)
    masked = (draw.argsort(axis=1).argsort(axis=1) < count[:, None]) & maskable
    fate = rng.random(ids.shape)
    corrupted = np.where(masked & (fate < 0.8), mask, ids)
    random = rng.integers(0, vocab, ids.shape)
    return np.where(masked & (fate >= 0.8) & (fate < 0.9), random, corrupted), masked
