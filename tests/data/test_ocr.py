"""Reading pages: with Tesseract if the machine has it, else with a program in its place that this file writes."""

import os
import shutil
import stat
from pathlib import Path

import pytest
from PIL import Image

from cots.data.ocr import read_pages, shorten, unread_pages
from cots.data.sources.documents.source import draw_documents
from cots.data.sources.folder import FolderSourceConfig
from cots.errors import BadInput
from tests.conftest import Cots

WORDS = Path(__file__).parents[2] / "cots/data/documents.yaml"
PROGRAM = """#!/bin/sh
if [ "$1" = --list-langs ]; then echo "List of available languages (2):"; echo eng; echo deu; exit; fi
bytes=$(wc -c)
[ "$bytes" -lt 1000 ] && { echo "too small" >&2; exit 1; }
[ "$4" = deu ] && exec sleep 60
printf 'Invoice\\n  of   %s\\n\\n\\f' "$4"
"""


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder with an image in a subfolder, one that has a text, one that is none, and a video."""
    folder = tmp_path / "pages"
    (folder / "invoice").mkdir(parents=True)
    for name in ("invoice/1.png", "2.jpg"):
        Image.effect_noise((64, 90), 60).save(folder / name)
    (folder / "2.txt").write_text("read before\n")
    (folder / "3.png").write_text("/etc/passwd")
    (folder / "4.mp4").write_bytes(b"")
    return folder


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called tesseract, the first on the path."""
    file = tmp_path / "bin/tesseract"
    file.parent.mkdir()
    file.write_text(PROGRAM)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{file.parent}{os.pathsep}{os.environ['PATH']}")
    return file


def test_each_page_without_a_text_is_read_once_and_source_folder_takes_the_text(
    pages: Path, program: Path, cots: Cots
) -> None:
    code, out, _ = cots("ocr", pages)
    assert code == 0
    assert out.startswith("pages read: 1, of these without any text: 0\npages that cannot be read: 1; the first: ")
    assert "3.png: not a picture: 11 bytes" in out  # and Tesseract did not take it for a list of files
    assert (pages / "invoice/1.txt").read_text() == "Invoice of eng\n"
    assert unread_pages(pages) == [pages / "3.png"]
    captions = {sample.id: sample.captions for sample in FolderSourceConfig(path=pages).read()}
    assert captions["invoice/1.png"] == ("Invoice of eng",)
    assert captions["2.jpg"] == ("read before",)


def test_the_command_fails_only_if_there_are_pages_to_read_and_none_can_be_read(
    pages: Path, program: Path, cots: Cots
) -> None:
    assert cots("ocr", pages)[0] == 0
    code, out, err = cots("ocr", pages)
    assert (code, out) == (1, "")
    assert "error: none of 1 pages can be read; the first: " in err
    assert "3.png: not a picture" in err
    (pages / "3.png").unlink()
    assert cots("ocr", pages)[:2] == (0, "pages read: 0, of these without any text: 0\n")


def test_a_page_that_takes_too_long_or_fails_gets_no_text(pages: Path, program: Path) -> None:
    image, options = pages / "invoice/1.png", {"max_chars": 9, "max_pixels": 10**6}
    [slow] = read_pages([image], languages="deu", seconds=0.2, **options)
    assert slow.problem == "tesseract took more than 0.2 s"
    Image.new("1", (20, 20)).save(pages / "5.png")
    [failed] = read_pages([pages / "5.png"], languages="eng", seconds=60, **options)
    assert failed.problem == "tesseract: too small"
    assert {file.name for file in pages.rglob("*.txt")} == {"2.txt"}


def test_what_cannot_be_read_at_all_is_told_in_one_line(
    pages: Path, program: Path, monkeypatch: pytest.MonkeyPatch, cots: Cots
) -> None:
    assert cots("ocr", pages, "--languages", "eng+fra")[2].startswith("error: tesseract has no language 'fra'")
    (pages / "captions.csv").write_text("image,caption\n")
    with pytest.raises(BadInput, match=r"captions\.csv is a caption table, and text files .* only without one"):
        unread_pages(pages)
    (pages / "captions.csv").unlink()
    assert cots("ocr", pages / "none")[2].endswith("none does not exist: give the one that holds the pages\n")
    assert cots("ocr", pages / "2.jpg")[2].endswith("2.jpg is a file: give the one that holds the pages\n")
    (pages / "empty").mkdir()
    assert cots("ocr", pages / "empty")[2].endswith("empty holds no image: give the folder that holds the pages\n")
    program.write_text("#!/bin/sh\necho no data >&2; exit 1\n")
    assert "tesseract cannot list its languages (tesseract: no data): try" in cots("ocr", pages)[2]
    monkeypatch.setenv("PATH", str(program.parent))
    program.write_text("no program")
    assert "tesseract cannot list its languages ([Errno 8] Exec format error" in cots("ocr", pages)[2]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "no program tesseract: install it" in cots("ocr", pages)[2]


def test_texts_are_cut_after_a_word() -> None:
    assert shorten(" a  bc\n def ", 8) == "a bc def"
    assert [shorten("a bc def", count) for count in (7, 4, 3, 1)] == ["a bc", "a bc", "a", "a"]
    assert shorten("abcdef", 4) == "abcd"


@pytest.mark.skipif(not shutil.which("tesseract"), reason="Tesseract is not installed")
def test_tesseract_reads_a_drawn_page(tmp_path: Path) -> None:
    [part] = draw_documents(WORDS, seed=0, width=700, pages={"train": 1, "val": 0, "test": 0})
    [page] = part.read()
    assert isinstance(page.content, bytes)
    (tmp_path / "1.jpg").write_bytes(page.content)
    [read] = read_pages([tmp_path / "1.jpg"], languages="eng", max_chars=500, max_pixels=10**7, seconds=60)
    words = set(page.captions[0].split())
    assert len(words & set(read.text.split())) > 0.8 * len(words)
