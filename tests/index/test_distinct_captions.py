"""Distinct captions that are found piece by piece are those that a dictionary finds."""

import numpy as np
import pyarrow as pa
import pytest

from cots.index.distinct_captions import DistinctCaptions
from cots.index.index_folder import CAPTION_SCHEMA


def in_pieces(captions: list[list[str]], size: int) -> list[pa.ListArray]:
    kind = CAPTION_SCHEMA.field("caption").type
    return [pa.array(captions[start : start + size], pa.list_(kind)) for start in range(0, len(captions), size)]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("vocabulary", [1, 40, 10**9])
def test_texts_and_items_are_those_of_a_dictionary(size: int, vocabulary: int) -> None:
    rng = np.random.default_rng(0)
    captions = [[f"ü {text}" for text in rng.integers(vocabulary, size=rng.integers(4))] for _ in range(200)]
    expected: dict[str, set[int]] = {}
    for row, own in enumerate(captions):
        for caption in own:
            expected.setdefault(caption, set()).add(row)
    pieces = in_pieces(captions, size)
    found = DistinctCaptions.find(pieces)
    rows = pa.Table.from_batches(found.rows(pieces)).to_pylist()
    assert [row["caption"] for row in rows] == [*expected]
    assert [row["items"] for row in rows] == [sorted(items) for items in expected.values()]
    assert [text for piece in found.texts(pieces) for text in piece.to_pylist()] == [*expected]
    assert len(found) == len(expected)


@pytest.mark.parametrize("captions", [[], [[]], [[], []]])
def test_items_without_captions_have_none(captions: list[list[str]]) -> None:
    pieces = in_pieces(captions, 1)
    found = DistinctCaptions.find(pieces)
    assert len(found) == 0
    assert [len(piece) for piece in found.rows(pieces)] == [0] * len(captions)
