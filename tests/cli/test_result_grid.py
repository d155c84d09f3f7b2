"""The grid of images of `cots search`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cots.cli.result_grid import CELL, GAP, GRID_COLUMNS, HEAD, SIDE, result_grid, write_grid
from cots.errors import BadInput

COLOURS = ["red", "green", "blue", "yellow", "cyan", "magenta", "gray"]


def hits(count: int, **changed: object) -> list[dict[str, Any]]:
    hit = {"score": 0.25, "captions": ["a square"], "media": "video", "frame": 2}
    return [{"rank": number + 1} | hit | changed for number in range(count)]


def grid_of(count: int, **changed: object) -> Image.Image:
    images = [Image.new("RGB", (64, 64), colour) for colour in COLOURS[:count]]
    return result_grid(hits(count, **changed), images, title="squares")


def texts(grid: Image.Image) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Where the grid is darker than its background, below the first image."""
    cell = grid.crop((0, HEAD + SIDE, GAP + CELL[0], HEAD + CELL[1]))
    return np.asarray(np.asarray(cell.convert("L")) < 200)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 7])
def test_a_grid_has_as_many_cells_as_rows_of_five_need(count: int) -> None:
    columns, rows = min(max(count, 1), GRID_COLUMNS), -(-count // GRID_COLUMNS)
    assert grid_of(count).size == (GAP + columns * CELL[0], HEAD + rows * CELL[1])


def test_images_stand_in_the_order_of_the_results() -> None:
    grid = grid_of(7)
    for number, colour in enumerate(COLOURS):
        middle = GAP + number % GRID_COLUMNS * CELL[0] + SIDE // 2, HEAD + number // GRID_COLUMNS * CELL[1] + SIDE // 2
        assert grid.getpixel(middle) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))


@pytest.mark.parametrize("size", [(400, 100), (100, 400), (3, 2), (64, 64)])
def test_an_image_keeps_its_shape_in_its_square(size: tuple[int, int]) -> None:
    grid = result_grid(hits(1), [Image.new("RGB", size, "red")], title="x")
    pixels = np.asarray(grid)[HEAD : HEAD + SIDE, GAP : GAP + SIDE]
    red = (pixels == [255, 0, 0]).all(axis=2)
    height, width = red.any(axis=1).sum(), red.any(axis=0).sum()
    assert max(height, width) == SIDE
    assert width / height == pytest.approx(size[0] / size[1], rel=0.05)


def test_score_frame_and_caption_are_written_under_the_image() -> None:
    plain = texts(grid_of(1))
    assert plain.any()
    for changed in ({"score": 0.75}, {"frame": 3}, {"media": "image"}, {"captions": ["a circle"]}):
        assert (texts(grid_of(1, **changed)) != plain).any(), changed
    assert (texts(grid_of(1, media="image", frame=0)) == texts(grid_of(1, media="image", frame=5))).all()


@pytest.mark.parametrize("caption", ["w" * 500, "many words " * 60, "слово за слово " * 40, "a\nb\tc", "x"])
def test_no_caption_leaves_its_cell(caption: str) -> None:
    ink = texts(grid_of(1, captions=[caption]))
    assert ink.any()
    assert not ink[:, :GAP].any()
    assert not ink[:, GAP + SIDE :].any()
    assert not ink[-3:].any()


@pytest.mark.parametrize(
    ("name", "form"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP")]
)
def test_the_suffix_names_the_format(tmp_path: Path, name: str, form: str) -> None:
    write_grid(tmp_path / name, grid_of(2))
    with Image.open(tmp_path / name) as opened:
        assert opened.format == form
        assert opened.size == grid_of(2).size
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_path_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(BadInput, match=r"cannot write .*a\.png"):
        write_grid(tmp_path / "a.png", grid_of(1))
