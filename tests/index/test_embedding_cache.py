"""The embedding cache: what is encoded, what is kept, what is dropped."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cots.index.embedding_cache import EmbeddingCache, digest_of

CONTENTS = [b"one", b"two", b"three", b"two"]
DIGESTS = [digest_of(content) for content in CONTENTS]


class Encoder:
    """Encodes n bytes as n rows of the value n; records the positions of each call."""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents, self.calls = contents, list[list[int]]()

    def __call__(self, positions: list[int]) -> list[NDArray[np.float32]]:
        self.calls.append(positions)
        lengths = [len(self.contents[position]) for position in positions]
        return [np.full((length, 2), length, np.float32) for length in lengths]


def test_only_unknown_inputs_are_encoded_and_the_order_is_kept(tmp_path: Path) -> None:
    first, again = Encoder(CONTENTS), Encoder([*CONTENTS, b"fifth"])
    cache = EmbeddingCache.load(tmp_path / "none.safetensors")
    embeddings = cache.rows(DIGESTS, first)
    assert [rows.shape for rows in embeddings] == [(3, 2), (3, 2), (5, 2), (3, 2)]
    cache.save(tmp_path / "cache.safetensors")
    loaded = EmbeddingCache.load(tmp_path / "cache.safetensors").rows([*DIGESTS, digest_of(b"fifth")], again)
    assert again.calls == [[4]]
    for rows, expected in zip(loaded, [*embeddings, np.full((5, 2), 5)], strict=True):
        np.testing.assert_array_equal(rows, expected)


def test_unused_embeddings_are_dropped(tmp_path: Path) -> None:
    path, encoder = tmp_path / "cache.safetensors", Encoder(CONTENTS)
    for digests in (DIGESTS, DIGESTS[:1], DIGESTS):
        cache = EmbeddingCache.load(path)
        cache.rows(digests, encoder)
        cache.save(path)
    assert encoder.calls == [[0, 1, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize("content", [b"", b"no such file", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_file_is_reported_and_everything_is_encoded_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path, encoder = tmp_path / "cache.safetensors", Encoder(CONTENTS)
    path.write_bytes(content)
    assert len(EmbeddingCache.load(path).rows(DIGESTS, encoder)) == 4
    assert "is damaged, everything is encoded anew" in caplog.text


def test_digests_depend_on_where_parts_end() -> None:
    assert len({digest_of(b"ab", b"c"), digest_of(b"a", b"bc"), digest_of(b"abc"), digest_of(b"abc", b"")}) == 4
