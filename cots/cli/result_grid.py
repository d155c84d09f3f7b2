"""Draws the results of a search as a grid of images."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from cots.errors import BadInput
from cots.files import atomic_file

GRID_COLUMNS = 5
SIDE = 192  # of the square for an image, pixels
GAP = 16
LINE = 17  # height of a line of text
CAPTION_LINES = 3
FONT_SIZE = 12
HEAD = GAP + LINE + GAP // 2
CELL = (SIDE + GAP, SIDE + (1 + CAPTION_LINES) * LINE + GAP)
PAPER, INK, FAINT = "white", "#1a1a1a", "#6b6b6b"


def result_grid(results: Sequence[dict[str, Any]], images: Sequence[Image.Image], *, title: str) -> Image.Image:
    """A grid of results, best first, at most `GRID_COLUMNS` in a row: image, rank, score, video frame, first caption.

    Args:
        results: of one query, as `cots.search.engine.SearchEngine` returns them.
        images: one for each result.
        title: the query.

    Returns:
        RGB, GAP + columns * CELL[0] wide and HEAD + rows * CELL[1] high.
    """
    labels = [(_rank_and_score(hit), hit["captions"][0]) for hit in results]
    return labelled_grid(images, labels, title=title)


def labelled_grid(images: Sequence[Image.Image], labels: Sequence[tuple[str, str]], *, title: str) -> Image.Image:
    """A grid of images, at most `GRID_COLUMNS` in a row, each above a faint line and a few lines of text.

    Args:
        images: of any size.
        labels: faint line and text for each image.
        title: drawn above the grid.
    """
    columns = min(max(len(images), 1), GRID_COLUMNS)
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (GAP + columns * CELL[0], HEAD + rows * CELL[1]), PAPER)
    draw, font = ImageDraw.Draw(grid), _font()
    title_chars = int((grid.width - 2 * GAP) / font.getlength("m"))
    draw.text((GAP, GAP), textwrap.shorten(title, title_chars, placeholder="…"), INK, font)
    for number, (image, (line, text)) in enumerate(zip(images, labels, strict=True)):
        left, top = GAP + number % columns * CELL[0], HEAD + number // columns * CELL[1]
        grid.paste(ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.LANCZOS, color=PAPER), (left, top))
        draw.text((left, top + SIDE + LINE // 4), line, FAINT, font)
        draw.text((left, top + SIDE + LINE * 5 // 4), _caption(text, font), INK, font, spacing=3)
    return grid


def write_grid(path: Path, grid: Image.Image) -> None:
    """Write an image file in the format of its suffix.

    Raises:
        BadInput: the file cannot be written.
    """
    try:
        with atomic_file(path) as temporary:
            grid.save(temporary, Image.registered_extensions().get(path.suffix.lower()))
    except (OSError, ValueError) as error:  # ValueError: Pillow does not know the suffix
        raise BadInput(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


def _rank_and_score(hit: dict[str, Any]) -> str:
    return f"{hit['rank']}  {hit['score']:.3f}" + (f"  frame {hit['frame']}" if hit["media"] == "video" else "")


def _caption(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The beginning of a text that fits under an image; the font is monospaced."""
    width = int(SIDE / font.getlength("m"))
    return "\n".join(textwrap.wrap(text, width, max_lines=CAPTION_LINES, placeholder="…"))


def _font() -> ImageFont.FreeTypeFont:
    """Matplotlib's copy of DejaVu; Pillow's own font has little beyond ASCII."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf", FONT_SIZE)
