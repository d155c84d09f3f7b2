"""Look-alikes are those that a search over all pairs finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cots.data.quality import look_alikes
from cots.data.quality.look_alikes import MAX_ALIKE_BITS, LookAlikes

Hashes = NDArray[np.uint64]
WORDS = st.integers(0, 2**64 - 1)


def count_slowly(hashes: Hashes, others: Hashes) -> int:
    return sum(any((a ^ b).bit_count() <= MAX_ALIKE_BITS for b in others.tolist()) for a in hashes.tolist())


@given(WORDS, st.sets(st.integers(0, 63), max_size=4))
def test_hashes_look_alike_up_to_the_limit_wherever_the_bits_lie(word: int, flipped: set[int]) -> None:
    other = word ^ sum(1 << bit for bit in flipped)
    search = LookAlikes(np.array([word], np.uint64))
    search.compare(np.array([other], np.uint64))
    assert search.count() == (len(flipped) <= MAX_ALIKE_BITS)


@pytest.mark.parametrize("compared_at_once", [5, look_alikes.MAX_COMPARED])
def test_a_search_in_pieces_finds_what_a_search_over_all_pairs_finds(
    monkeypatch: pytest.MonkeyPatch, compared_at_once: int
) -> None:
    monkeypatch.setattr(look_alikes, "MAX_COMPARED", compared_at_once)
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 2**63, 20, dtype=np.uint64) & ~np.uint64(0xFFFFFFFF)  # most share half of their bits
    bits = np.uint64(1) << rng.integers(0, 64, (3, 400), dtype=np.uint64)
    scattered = rng.choice(centers, 400) ^ np.bitwise_xor.reduce(bits)  # 1 or 3 bits from a center, repeats included
    hashes, others = scattered[:150], scattered[150:]
    search = LookAlikes(hashes)
    for piece in np.array_split(others, 7):
        search.compare(piece)
    assert search.count() == count_slowly(hashes, others)
    assert 0 < search.count() < len(hashes)


def test_nothing_looks_like_nothing() -> None:
    for hashes, others in ([], [1]), ([1], []):
        search = LookAlikes(np.array(hashes, np.uint64))
        search.compare(np.array(others, np.uint64))
        assert search.count() == 0
