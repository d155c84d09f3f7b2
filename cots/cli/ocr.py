"""`cots ocr`: reads the text of page images, before a project is made of them."""

from pathlib import Path
from typing import Annotated

import typer

from cots.data.limits import MAX_CAPTION_CHARS, MAX_PIXELS
from cots.errors import RunFailed
from cots.terminal import escape_controls


def ocr(
    folder: Annotated[Path, typer.Argument(help="Folder of page images.")],
    languages: Annotated[str, typer.Option(help="Codes of Tesseract's languages, joined by +.")] = "eng",
    max_chars: Annotated[
        int, typer.Option(min=1, help="Longer texts are cut after a word; at most prepare.max_caption_chars.")
    ] = MAX_CAPTION_CHARS,
    max_pixels: Annotated[int, typer.Option(min=1, help="Larger images are not read.")] = MAX_PIXELS,
    seconds: Annotated[float, typer.Option(min=1, max=86_400, help="Time for one page.")] = 60,
) -> None:
    """Read each page without a text by Tesseract, into a text file of its name beside it.

    Source `folder` takes the text as the page's caption. A page on which nothing is read gets an empty file, and is
    part of the gallery. Repeated, the command reads only the pages that have no file yet. If there are some and none of
    them can be read, it fails.
    """
    from cots.data.ocr import read_pages, unread_pages
    from cots.progress import Progress

    images, empty, problems = unread_pages(folder.expanduser()), 0, []
    pages = read_pages(images, languages=languages, max_chars=max_chars, max_pixels=max_pixels, seconds=seconds)
    with Progress("ocr", total=len(images), unit="pages") as progress:
        for page in pages:
            empty += not page.text and page.problem is None
            if page.problem:
                problems.append(f"{page.image}: {page.problem}")
            progress.advance()
    first = escape_controls(problems[0]) if problems else ""
    if problems and len(problems) == len(images):
        raise RunFailed(f"none of {len(images)} pages can be read; the first: {first}")
    typer.echo(f"pages read: {len(images) - len(problems)}, of these without any text: {empty}")
    if problems:
        typer.echo(f"pages that cannot be read: {len(problems)}; the first: {first}")
