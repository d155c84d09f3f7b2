"""A contact sheet: the results of a search as one picture."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from cots.errors import BadInput
from cots.files import atomic_file

COLUMNS = 5
SIDE = 192  # of the square in which a picture stands, pixels
GAP = 16
LINE = 17  # height of a line of text
CAPTION_LINES = 3
FONT_SIZE = 12
HEAD = GAP + LINE + GAP // 2
CELL = (SIDE + GAP, SIDE + (1 + CAPTION_LINES) * LINE + GAP)
PAPER, INK, FAINT = "white", "#1a1a1a", "#6b6b6b"


def contact_sheet(results: Sequence[dict[str, Any]], pictures: Sequence[Image.Image], *, title: str) -> Image.Image:
    """Results in rows of at most `COLUMNS`, best first: the picture, rank, score, frame of a clip, first caption.

    Args:
        results: of one query, as `cots.search.engine.Search` gives them.
        pictures: one for each.
        title: what was looked for.

    Returns:
        RGB, GAP + columns * CELL[0] wide and HEAD + rows * CELL[1] high.
    """
    labels = [(_figures(hit), hit["captions"][0]) for hit in results]
    return labelled_sheet(pictures, labels, title=title)


def labelled_sheet(pictures: Sequence[Image.Image], labels: Sequence[tuple[str, str]], *, title: str) -> Image.Image:
    """Pictures in rows of at most `COLUMNS`, each over a faint line and a text of a few lines.

    Args:
        pictures: of any size.
        labels: line and text of each.
        title: over all of them.
    """
    columns = min(max(len(pictures), 1), COLUMNS)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (GAP + columns * CELL[0], HEAD + rows * CELL[1]), PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    wide = int((sheet.width - 2 * GAP) / font.getlength("m"))
    draw.text((GAP, GAP), textwrap.shorten(title, wide, placeholder="…"), INK, font)
    for number, (picture, (line, text)) in enumerate(zip(pictures, labels, strict=True)):
        left, top = GAP + number % columns * CELL[0], HEAD + number // columns * CELL[1]
        sheet.paste(ImageOps.pad(picture, (SIDE, SIDE), Image.Resampling.LANCZOS, color=PAPER), (left, top))
        draw.text((left, top + SIDE + LINE // 4), line, FAINT, font)
        draw.text((left, top + SIDE + LINE * 5 // 4), _caption(text, font), INK, font, spacing=3)
    return sheet


def write_sheet(path: Path, sheet: Image.Image) -> None:
    """Write a picture file in the format that its suffix names.

    Raises:
        BadInput: the file cannot be written.
    """
    try:
        with atomic_file(path) as aside:
            sheet.save(aside, Image.registered_extensions().get(path.suffix.lower()))
    except (OSError, ValueError) as error:  # the latter of a suffix that Pillow does not know
        raise BadInput(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


def _figures(hit: dict[str, Any]) -> str:
    return f"{hit['rank']}  {hit['score']:.3f}" + (f"  frame {hit['frame']}" if hit["media"] == "video" else "")


def _caption(text: str, font: ImageFont.FreeTypeFont) -> str:
    """As much of it as fits under a picture: letters are equally wide."""
    width = int(SIDE / font.getlength("m"))
    return "\n".join(textwrap.wrap(text, width, max_lines=CAPTION_LINES, placeholder="…"))


def _font() -> ImageFont.FreeTypeFont:
    """Matplotlib's copy of DejaVu: Pillow's own font knows little beyond ASCII."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf", FONT_SIZE)
