"""Masks have exactly the requested size; crops stay within the image; views are stored exactly."""

import math
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from cots.data.crop_views import CropViews
from cots.data.masking import mask_tokens, random_block_mask
from cots.data.random_crop import crop, random_resized_crop_box
from cots.errors import BadInput


@pytest.mark.parametrize(
    ("grid", "num_masked", "min_block"), [(8, 26, 4), (14, 78, 16), (24, 230, 16), (2, 1, 16), (3, 9, 1), (5, 0, 4)]
)
def test_block_masks_have_exactly_the_requested_size(grid: int, num_masked: int, min_block: int) -> None:
    masked = random_block_mask(np.random.default_rng(0), 50, grid=grid, num_masked=num_masked, min_block=min_block)
    assert masked.shape == (50, grid * grid)
    assert (masked.sum(axis=1) == num_masked).all()


def test_no_images_have_no_masks() -> None:
    assert random_block_mask(np.random.default_rng(0), 0, grid=8, num_masked=26, min_block=4).shape == (0, 64)


def test_masks_of_some_images_are_those_of_the_batch() -> None:
    mask = partial(random_block_mask, grid=6, num_masked=14, min_block=4)
    whole = mask(np.random.default_rng(0), 9)
    for images in (slice(0, 9), slice(0, 4), slice(4, 5), slice(8, 9)):
        part = mask(np.random.default_rng(0), 9, images=images)
        np.testing.assert_array_equal(part, whole[images])


def slow_block_mask(rng: np.random.Generator, *, grid: int, num_masked: int, min_block: int) -> NDArray[np.bool_]:
    """The mask of one image, patch by patch: the slow reference of the vectorized function."""
    masked: set[tuple[int, int]] = set()
    while remaining := num_masked - len(masked):
        area = rng.uniform(min(min_block, remaining), max(min_block, remaining))
        aspect = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
        height, width = (min(max(round(math.sqrt(side)), 1), grid) for side in (area * aspect, area / aspect))
        top, left = rng.integers(grid - height + 1), rng.integers(grid - width + 1)
        block = [place for place in product(range(top, top + height), range(left, left + width)) if place not in masked]
        rng.shuffle(block)
        masked |= {(int(row), int(column)) for row, column in block[:remaining]}
    return np.array([[(row, column) in masked for column in range(grid)] for row in range(grid)])


@pytest.mark.parametrize(("grid", "num_masked", "min_block"), [(8, 26, 4), (7, 20, 6), (4, 3, 16)])
def test_masks_have_the_distribution_of_the_slow_reference(grid: int, num_masked: int, min_block: int) -> None:
    """Patches, alone and with their right or lower neighbour, are masked as often, to 5 deviations of 3,000 masks."""
    fast = random_block_mask(np.random.default_rng(0), 3000, grid=grid, num_masked=num_masked, min_block=min_block)
    fast = fast.reshape(-1, grid, grid)
    rng = np.random.default_rng(1)
    masks = (slow_block_mask(rng, grid=grid, num_masked=num_masked, min_block=min_block) for _ in range(3000))
    slow = np.stack(list(masks))
    for actual, expected in (
        (fast, slow),
        (fast[:, 1:] & fast[:, :-1], slow[:, 1:] & slow[:, :-1]),
        (fast[:, :, 1:] & fast[:, :, :-1], slow[:, :, 1:] & slow[:, :, :-1]),
    ):
        np.testing.assert_allclose(actual.mean(axis=0), expected.mean(axis=0), atol=5 * math.sqrt(2 * 0.25 / 3000))


def test_tokens_are_masked_in_the_stated_fractions_and_special_tokens_never() -> None:
    ids = np.full((400, 20), 50)
    maskable = np.ones_like(ids, dtype=bool)
    maskable[:, [0, 19]] = False
    corrupted, masked = mask_tokens(
        np.random.default_rng(0).random((3, 400, 20)), ids, maskable, probability=0.15, mask_token=4, vocab_size=1000
    )
    assert not masked[~maskable].any()
    assert (masked.sum(axis=1) == 3).all()
    assert np.array_equal(corrupted[~masked], ids[~masked])
    assert (corrupted[masked] == 4).mean() == pytest.approx(0.8, abs=0.04)
    assert (corrupted[masked] == 50).mean() == pytest.approx(0.1, abs=0.03)


def test_a_text_of_one_token_has_it_to_predict_and_an_empty_text_has_nothing() -> None:
    maskable = np.array([[False, True, False], [False, False, False]])
    _, masked = mask_tokens(
        np.random.default_rng(0).random((3, 2, 3)),
        np.ones((2, 3), dtype=int),
        maskable,
        probability=0.15,
        mask_token=4,
        vocab_size=9,
    )
    assert masked.sum(axis=1).tolist() == [1, 0]


@pytest.mark.parametrize("aspect", [0.2, 1.0, 3.7])
def test_boxes_are_within_the_image_and_have_the_stated_area(aspect: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = random_resized_crop_box(rng, aspect=aspect, scale=(0.3, 0.8), ratio=(0.75, 1.33))
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        assert (right - left) * (bottom - top) <= 0.8 + 1e-9
        if right - left < 1 and bottom - top < 1:
            assert (right - left) * (bottom - top) >= 0.3 - 1e-9


def test_a_crop_shows_the_part_that_its_box_names() -> None:
    halves = np.zeros((10, 20, 3), dtype=np.uint8)
    halves[:, 10:] = 255
    image = Image.fromarray(halves)
    assert crop(image, (0.0, 0.0, 0.4, 1.0), 6).max() == 0
    assert crop(image, (0.6, 0.0, 1.0, 1.0), 6).min() == 255


def test_views_are_read_as_they_were_written_and_written_the_same_each_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    views = CropViews(
        frames=rng.integers(0, 3, (5, 2)).astype(np.uint16),
        boxes=rng.random((5, 2, 4)).astype(np.float32),
        tokens=rng.integers(0, 8192, (5, 2, 16)).astype(np.uint16),
    )
    views.save(tmp_path / "a.safetensors")
    views.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    library = load_file(tmp_path / "a.safetensors")
    read = CropViews.load(tmp_path / "a.safetensors")._asdict()
    for name, written in views._asdict().items():
        for array in (read[name], library[name]):
            np.testing.assert_array_equal(written, array)
            assert written.dtype == array.dtype


def test_an_error_about_missing_views_names_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="dvc repro tokenize"):
        CropViews.load(tmp_path / "none.safetensors")
