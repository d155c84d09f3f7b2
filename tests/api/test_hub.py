"""Models go to the Hugging Face hub and come back."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cots
from tests.hub import Hub, local_hub

TEXTS = ["a red square", "a blue square"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with local_hub(str(tmp_path / "cache"), monkeypatch) as hub:
        yield hub


def test_a_model_that_was_pushed_comes_back_with_equal_vectors(hub: Hub, tiny_package: Path) -> None:
    model, image = cots.load(tiny_package / "index"), Image.new("RGB", (40, 30), "red")
    vectors = model.encode_texts(TEXTS), model.encode_images(image)
    address = model.push_to_hub("ann/squares", private=True)
    assert address.startswith(f"{hub.endpoint}/ann/squares/commit/")
    files = hub.files["ann/squares"]
    assert {"model.safetensors", "model.json", "tokenizer/tokenizer.json", "README.md"} <= files.keys()
    assert b"library_name: cots" in files["README.md"]
    assert b"RSUM 240.0 of 600" in files["README.md"]
    for again in (cots.from_pretrained("ann/squares", revision="main"), cots.load("ann/squares")):
        assert again.digest == model.digest
        np.testing.assert_array_equal(again.encode_texts(TEXTS), vectors[0])
        np.testing.assert_array_equal(again.encode_images(image), vectors[1])


def test_what_the_hub_refuses_is_told_in_one_line(hub: Hub, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cots.load(tiny_model)
    with pytest.raises(cots.BadInput, match="no checkpoint ann/nothing: no such folder, and the hub does not give it"):
        cots.from_pretrained("ann/nothing")
    with pytest.raises(cots.BadInput, match="a b/c is no name of a repository"):
        model.push_to_hub("a b/c")
    with pytest.raises(cots.RunFailed, match=f"the hub {hub.endpoint} does not take ann/squares: .*401") as refused:
        model.push_to_hub("ann/squares", token="wrong")
    assert "\n" not in str(refused.value)
