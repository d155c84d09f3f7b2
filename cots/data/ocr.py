"""Reads the text of page images with Tesseract, and writes it beside each image where source `folder` looks for it."""

import io
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cots.data.image_decoding import UnusableImage, decode_image
from cots.data.limits import MIN_SIDE
from cots.data.sources.folder import find_media, find_tables
from cots.data.sources.layout_io import media_of, require_folder
from cots.decode_threads import decode_in_threads
from cots.errors import BadInput
from cots.files import atomic_file

PROGRAM = "tesseract"


class PageText(NamedTuple):
    """What became of a page: its text, which may be empty, or why it could not be read."""

    image: Path
    text: str
    problem: str | None = None


def unread_pages(folder: Path) -> list[Path]:
    """The images below a folder that have no text file of their name beside them.

    Raises:
        BadInput: no such folder; it holds no image; or a caption table, beside which text files are not read.
    """
    require_folder(folder, "give the one that holds the pages")
    if tables := find_tables(folder):
        raise BadInput(
            f"{tables[0]} is a caption table, and text files beside images are read only without one: move it away"
        )
    images = [folder / name for name in find_media(folder) if media_of(name) == "image"]
    if not images:
        raise BadInput(f"{folder} holds no image: give the folder that holds the pages")
    return list(
        {image.with_suffix(".txt"): image for image in images if not image.with_suffix(".txt").exists()}.values()
    )


def read_pages(
    images: list[Path], *, languages: str, max_chars: int, max_pixels: int, seconds: float
) -> Iterator[PageText]:
    """Read pages and write the text of each beside it as one line; a page that cannot be read gets no file.

    Args:
        images: of the pages.
        languages: codes of Tesseract's languages, joined by `+`.
        max_chars: longer texts are cut after a word.
        max_pixels: larger images are not read.
        seconds: for one page.

    Raises:
        BadInput: Tesseract is not installed, does not run, or lacks a language.
    """
    _require_languages(languages)
    read = partial(_read_page, languages=languages, max_chars=max_chars, max_pixels=max_pixels, seconds=seconds)
    yield from decode_in_threads(images, read, max_pixels=max_pixels)


def _read_page(image: Path, *, languages: str, max_chars: int, max_pixels: int, seconds: float) -> PageText:
    try:
        # Through the project's own decoder: Tesseract takes a file that is no image for a list of files to read.
        page, png = decode_image(image.read_bytes(), max_pixels=max_pixels, min_side=MIN_SIDE), io.BytesIO()
        page.save(png, "PNG", compress_level=1)
        text = shorten(_tesseract("stdin", "stdout", "-l", languages, data=png.getvalue(), seconds=seconds), max_chars)
    except (UnusableImage, OSError, subprocess.SubprocessError) as error:
        return PageText(image, "", _describe(error))
    with atomic_file(image.with_suffix(".txt")) as partial_file:
        partial_file.write_text(text + "\n" if text else "", encoding="utf8")
    return PageText(image, text)


def shorten(text: str, max_chars: int) -> str:
    """The text as one line of at most so many characters, cut after a word if there is one to cut after."""
    line = " ".join(text.split())
    if len(line) <= max_chars:
        return line
    return line[: max_chars + 1].rpartition(" ")[0] or line[:max_chars]


def _require_languages(languages: str) -> None:
    try:
        known = _tesseract("--list-langs", data=b"", seconds=60).split()
    except FileNotFoundError:
        raise BadInput(f"no program {PROGRAM}: install it, on Debian with `apt-get install tesseract-ocr`") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise BadInput(
            f"{PROGRAM} cannot list its languages ({_describe(error)}): try `{PROGRAM} --list-langs`, install it anew"
        ) from None
    if missing := [language for language in languages.split("+") if language not in known]:
        raise BadInput(
            f"{PROGRAM} has no language {', '.join(missing)!r:.100}: on Debian the package tesseract-ocr-NAME has it"
        )


def _tesseract(*arguments: str, data: bytes, seconds: float) -> str:
    done = subprocess.run(  # noqa: S603
        [PROGRAM, *arguments],
        input=data,
        capture_output=True,
        check=True,
        timeout=seconds,
        env=os.environ | {"OMP_THREAD_LIMIT": "1"},
    )
    return done.stdout.decode(errors="replace")


def _describe(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{PROGRAM} took more than {error.timeout:g} s"
    if isinstance(error, subprocess.CalledProcessError):
        return f"{PROGRAM}: {' '.join(error.stderr.decode(errors='replace').split())[:200]}"
    return str(error)
