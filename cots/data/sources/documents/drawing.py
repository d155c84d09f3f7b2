"""Draws the pages of documents with the typefaces that matplotlib ships, so that no machine draws another page."""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cots.data.sources.documents.layout import HEIGHT, WIDTH, Page
from cots.data.sources.documents.stationery import Look

SUPERSAMPLING = 3  # subpixels along a pixel's side
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
TYPEFACES = {"sans": "DejaVuSans", "serif": "DejaVuSerif"}
LOGO = 12  # side, in units of the page
OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {  # of logos with corners, in units of their side
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "diamond": ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
}
PAPER, INK, STAMP = (250, 249, 245), (30, 30, 35), (190, 30, 45)


def draw_page(page: Page, look: Look, rng: np.random.Generator, *, width: int) -> Image.Image:
    """Draw a page as a scanner sees it: slightly turned, with grain.

    Args:
        page: what stands where.
        look: how far it is turned, and how strong the grain is.
        rng: of both.
        width: pixels; the height follows from the page's proportions.
    """
    scale = width * SUPERSAMPLING / WIDTH
    image = Image.new("RGB", (width * SUPERSAMPLING, round(width * HEIGHT / WIDTH) * SUPERSAMPLING), PAPER)
    pen = ImageDraw.Draw(image)
    _draw_logo(pen, page, scale)
    for box in page.boxes:
        corners = [scale * value for value in (box.x, box.y, box.x + box.width, box.y + box.height)]
        pen.rectangle(corners, fill=INK if box.filled else None, outline=INK, width=max(1, round(0.5 * scale)))
    for words in page.words:
        font = _font(page.style.font, bold=words.bold, pixels=round(words.size * scale))
        colour = STAMP if words.stamp else INK
        pen.text((scale * words.x, scale * words.y), words.text, font=font, fill=colour)
    angle = float(rng.uniform(-look.skew, look.skew))
    turned = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=PAPER).reduce(SUPERSAMPLING)
    grain = rng.normal(0, look.grain, (turned.height, turned.width, 1))
    return Image.fromarray(np.clip(np.rint(np.asarray(turned) + grain), 0, 255).astype(np.uint8))


def _draw_logo(pen: ImageDraw.ImageDraw, page: Page, scale: float) -> None:
    left, top, side = scale * page.logo_x, scale * 7, scale * LOGO
    if page.style.shape == "circle":
        pen.ellipse((left, top, left + side, top + side), fill=page.style.colour)
    else:
        corners = [(left + x * side, top + y * side) for x, y in OUTLINES[page.style.shape]]
        pen.polygon(corners, fill=page.style.colour)


@cache
def _font(typeface: str, *, bold: bool, pixels: int) -> ImageFont.FreeTypeFont:
    """Without Raqm, which Pillow has on some machines only."""
    name = f"{TYPEFACES[typeface]}{'-Bold' if bold else ''}.ttf"
    return ImageFont.truetype(FONTS / name, pixels, layout_engine=ImageFont.Layout.BASIC)
