"""The grid of images of `cots search`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from cots.cli import result_grid as grid_module
from cots.cli.result_grid import CELL, GAP, GRID_COLUMNS, HEAD, LINE, SIDE, result_grid, write_grid
from cots.errors import BadInput

COLOURS = ["red", "green", "blue", "yellow", "cyan", "magenta", "gray"]


def hits(count: int, **changed: object) -> list[dict[str, Any]]:
    hit = {"id": "a.jpg", "score": 0.25, "captions": ["a square"], "media": "video", "frame": 2, "best_caption": 0}
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


def test_of_several_captions_the_one_that_fits_the_query_is_shown() -> None:
    both = grid_of(1, captions=["a square", "a circle"], best_caption=1)
    assert (texts(both) == texts(grid_of(1, captions=["a circle"]))).all()


def test_a_result_without_a_caption_shows_its_id() -> None:
    assert (texts(grid_of(1, captions=[], id="b.jpg")) == texts(grid_of(1, captions=["b.jpg"]))).all()


@pytest.mark.parametrize(
    "caption", ["w" * 500, "many words " * 60, "слово за слово " * 40, "红色的圆" * 60, "a\nb\tc", "x"]
)
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


@pytest.fixture
def machine_with_a_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The only fonts beside DejaVu: one of full squares for two Chinese letters, and a file that is no font."""
    square = TTGlyphPen(None)
    square.moveTo((0, 0))
    for corner in ((0, 800), (1000, 800), (1000, 0)):
        square.lineTo(corner)
    square.closePath()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord("红"): "square", ord("圆"): "square"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": square.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "squares.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    paths = [str(tmp_path / name) for name in ("broken.ttf", "squares.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: paths)
    caches = (grid_module._font_with, grid_module._system_fonts)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.usefixtures("machine_with_a_font")
def test_letters_that_the_first_font_lacks_are_drawn_by_another_font_of_the_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, missing = (texts(grid_of(1, captions=[caption])) for caption in ("a 红 b", "a 色 b"))
    assert found.sum() > missing.sum() + 60  # a full square of 12 x 10 pixels instead of an empty one
    assert capsys.readouterr().err == (
        "no font on this machine has 色: the grid shows boxes; install one, such as fonts-noto-cjk\n"
    )


@pytest.mark.usefixtures("machine_with_a_font")
def test_nothing_is_reported_where_every_letter_has_a_font(capsys: pytest.CaptureFixture[str]) -> None:
    grid_of(1, captions=["wide 红圆, слово, دائرة حمراء, é, a\u200d\n"])
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("machine_with_a_font")
def test_parts_of_a_text_from_right_to_left_stand_in_its_order() -> None:
    """What follows an Arabic word is on its left: here a full square of 12 x 10 pixels, drawn by another font."""
    for caption, is_square in (("دائرة 红", True), ("circle 红", False)):
        line = texts(grid_of(1, captions=[caption]))[LINE * 5 // 4 : LINE * 9 // 4]
        assert (line[:, GAP : GAP + 12].sum() > 100) == is_square


@pytest.mark.usefixtures("machine_with_a_font")
def test_each_script_without_a_font_has_its_package(capsys: pytest.CaptureFixture[str]) -> None:
    grid_of(1, captions=["色 ไ 🐶"])
    assert capsys.readouterr().err == (
        "no font on this machine has 色ไ🐶: the grid shows boxes; install one, such as fonts-noto-cjk and "
        "fonts-noto-core and fonts-symbola\n"
    )
