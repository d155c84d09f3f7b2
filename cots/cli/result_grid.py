"""Draws the results of a search as a grid of images."""

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cots.errors import BadInput
from cots.files import atomic_file
from cots.search_engine.engine import caption_of

GRID_COLUMNS = 5
SIDE = 192  # of the square for an image, pixels
GAP = 16
LINE = 17  # height of a line of text
CAPTION_LINES = 3
FONT_SIZE = 12
HEAD = GAP + LINE + GAP // 2
CELL = (SIDE + GAP, SIDE + (1 + CAPTION_LINES) * LINE + GAP)
# Pillow's own font has little beyond ASCII
DEJAVU = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf"
PAPER, INK, FAINT = "white", "#1a1a1a", "#6b6b6b"


def result_grid(results: Sequence[dict[str, Any]], images: Sequence[Image.Image], *, title: str) -> Image.Image:
    """A grid of results, best first, at most `GRID_COLUMNS` in a row: image, rank, score, video frame, caption or id.

    Args:
        results: of one query, as `cots.search_engine.engine.SearchEngine` returns them.
        images: one for each result.
        title: the query.

    Returns:
        RGB, GAP + columns * CELL[0] wide and HEAD + rows * CELL[1] high.
    """
    labels = [(_rank_and_score(hit), caption_of(hit) or hit["id"]) for hit in results]
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
    draw = ImageDraw.Draw(grid)
    cell_width = _font(DEJAVU).getlength("m")
    _draw_text(draw, (GAP, GAP), _shortened(title, int((grid.width - 2 * GAP) / cell_width), lines=1), INK)
    for number, (image, (line, text)) in enumerate(zip(images, labels, strict=True)):
        left, top = GAP + number % columns * CELL[0], HEAD + number // columns * CELL[1]
        grid.paste(ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.LANCZOS, color=PAPER), (left, top))
        _draw_text(draw, (left, top + SIDE + LINE // 4), [line], FAINT)
        caption = _shortened(text, int(SIDE / cell_width), lines=CAPTION_LINES)
        _draw_text(draw, (left, top + SIDE + LINE * 5 // 4), caption, INK)
    _report_missing([title, *(text for _, text in labels)])
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


def _shortened(text: str, cells: int, *, lines: int) -> list[str]:
    """The beginning of a text in at most so many lines, broken at spaces or, without any, anywhere.

    Args:
        text: with any white space.
        cells: width of a line in letters; Chinese, Japanese and Korean letters count twice.
        lines: at least 1.
    """
    wrapped = [line.plain.rstrip() for line in Text(" ".join(text.split())).wrap(Console(), cells)]
    if len(wrapped) <= lines:
        return wrapped
    last = Text(f"{wrapped[lines - 1]} {wrapped[lines]}")
    last.truncate(cells, overflow="ellipsis")
    return [*wrapped[: lines - 1], last.plain]


def _draw_text(draw: ImageDraw.ImageDraw, position: tuple[int, int], lines: Sequence[str], color: str) -> None:
    for number, line in enumerate(lines):
        left, top = float(position[0]), position[1] + number * LINE
        runs = list(_runs(line))
        for path, run in reversed(runs) if _is_right_to_left(line) else runs:
            draw.text((left, top), run, color, _font(path))
            left += _font(path).getlength(run)


def _runs(text: str) -> Iterator[tuple[Path, str]]:
    """The parts of a line that one font draws."""
    for path, letters in groupby(text, key=lambda letter: _font_with(letter) or DEJAVU):
        yield path, "".join(letters)


def _is_right_to_left(line: str) -> bool:
    """Whether the first letter that has a direction is written from right to left, as Arabic's and Hebrew's are.

    Source: rules P2 and P3 of Unicode's bidirectional algorithm, UAX 9.
    """
    directions = map(unicodedata.bidirectional, line)
    return next((direction != "L" for direction in directions if direction in ("L", "R", "AL")), False)


@cache
def _font_with(letter: str) -> Path | None:
    """The first font of this machine that has a letter, Matplotlib's copy of DejaVu before the others."""
    fonts = (path for path in (DEJAVU, *_system_fonts()) if ord(letter) in _letters(path))
    return next(fonts, None)


@cache
def _system_fonts() -> list[Path]:
    return sorted(map(Path, font_manager.findSystemFonts()))


@cache
def _letters(path: Path) -> frozenset[int]:
    """Code points that a font has; none if it cannot be used, such as the bitmaps of colour emoji."""
    try:
        _font(path)
        return frozenset(FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@cache
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, FONT_SIZE)


def _report_missing(texts: Sequence[str]) -> None:
    """Name the letters that are drawn as boxes."""
    letters = dict.fromkeys(letter for text in texts for letter in text if letter.isprintable() and cell_len(letter))
    missing = "".join(letter for letter in letters if not _font_with(letter))
    if missing:
        packages = " and ".join(dict.fromkeys(map(_package_with, missing)))
        print(
            f"no font on this machine has {missing[:40]}: the grid shows boxes; install one, such as {packages}",
            file=sys.stderr,
        )


def _package_with(letter: str) -> str:
    """The package of Debian and Ubuntu whose fonts have a letter."""
    if unicodedata.category(letter) == "So":  # emoji; those of fonts-noto-color-emoji are bitmaps
        return "fonts-symbola"
    return "fonts-noto-cjk" if unicodedata.east_asian_width(letter) in "WF" else "fonts-noto-core"
