"""Vectors that are remembered: what is encoded, what is kept, what is forgotten."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cots.index.embedding_cache import EmbeddingCache, digest_of

THINGS = [b"one", b"two", b"three", b"two"]
DIGESTS = [digest_of(thing) for thing in THINGS]


class Encoder:
    """As many rows as a thing has letters, all of its length; the places of each call are noted."""

    def __init__(self, things: list[bytes]) -> None:
        self.things, self.calls = things, list[list[int]]()

    def __call__(self, places: list[int]) -> list[NDArray[np.float32]]:
        self.calls.append(places)
        return [np.full((len(self.things[place]), 2), len(self.things[place]), np.float32) for place in places]


def test_only_what_is_unknown_is_encoded_and_everything_keeps_its_place(tmp_path: Path) -> None:
    first, again = Encoder(THINGS), Encoder([*THINGS, b"fifth"])
    memory = EmbeddingCache.load(tmp_path / "none.safetensors")
    found = memory.rows(DIGESTS, first)
    assert [rows.shape for rows in found] == [(3, 2), (3, 2), (5, 2), (3, 2)]
    memory.save(tmp_path / "kept.safetensors")
    later = EmbeddingCache.load(tmp_path / "kept.safetensors").rows([*DIGESTS, digest_of(b"fifth")], again)
    assert again.calls == [[4]]
    for mine, theirs in zip(later, [*found, np.full((5, 2), 5)], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_is_not_asked_for_any_more_is_forgotten(tmp_path: Path) -> None:
    path, encoder = tmp_path / "kept.safetensors", Encoder(THINGS)
    for digests in (DIGESTS, DIGESTS[:1], DIGESTS):
        memory = EmbeddingCache.load(path)
        memory.rows(digests, encoder)
        memory.save(path)
    assert encoder.calls == [[0, 1, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize("content", [b"", b"no such file", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_file_is_told_and_everything_is_encoded_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path, encoder = tmp_path / "kept.safetensors", Encoder(THINGS)
    path.write_bytes(content)
    assert len(EmbeddingCache.load(path).rows(DIGESTS, encoder)) == 4
    assert "is damaged, everything is encoded anew" in caplog.text


def test_parts_do_not_run_into_each_other() -> None:
    assert len({digest_of(b"ab", b"c"), digest_of(b"a", b"bc"), digest_of(b"abc"), digest_of(b"abc", b"")}) == 4
