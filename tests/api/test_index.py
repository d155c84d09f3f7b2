"""The Python interface to an index."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cots
from cots.registry.client import INDEX
from tests.conftest import COLOURS, tracked_in


@pytest.fixture(scope="module")
def index(tiny_package: Path) -> cots.Index:
    return cots.load_index(tiny_package / "index")


def test_a_text_and_an_image_find_what_is_nearest(index: cots.Index) -> None:
    assert len(index) == len(COLOURS)
    assert [result["rank"] for result in index.search("a red square", k=3)] == [1, 2, 3]
    for image in (Image.new("RGB", (40, 32), "blue"), np.full((32, 40, 3), (0, 0, 255), np.uint8)):
        assert index.search(image)[0]["id"] == "blue"
    assert {result["media"] for result in index.search("a red square", media="text")} == {"text"}


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        (" ", {}, "the text is blank"),
        (3, {}, "image 0 is int"),
        ("a", {"k": 0}, "k is 0: give a number"),
        ("a", {"media": "sound"}, "media is 'sound': give any, image, video, text"),
    ],
)
def test_what_is_no_query_is_told_in_one_line(
    index: cots.Index, query: object, options: dict[str, object], message: str
) -> None:
    with pytest.raises(cots.BadInput, match=message):
        index.search(query, **options)  # type: ignore[arg-type]


def test_the_number_of_results_may_be_one_of_numpy(index: cots.Index) -> None:
    assert len(index.search("a", np.int64(2))) == 2  # type: ignore[arg-type]


def test_the_champion_is_searched_by_its_alias(store_of_one_version: Path, index: cots.Index) -> None:
    with tracked_in(store_of_one_version):
        assert len(cots.load_index(f"models:/{INDEX}@champion")) == len(COLOURS)
        for query in ("a red square", Image.new("RGB", (40, 32), "blue")):
            assert cots.search(f"models:/{INDEX}@champion", query, k=2) == index.search(query, k=2)
