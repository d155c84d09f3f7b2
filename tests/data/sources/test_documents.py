"""Drawn documents: the same seed draws the same bytes, and a page's text is what stands on it."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cots.data.samples import Sample
from cots.data.sources.documents.drawing import draw_page
from cots.data.sources.documents.layout import CLASSES, HEIGHT, RIGHT, WIDTH, Page, sample_page
from cots.data.sources.documents.source import draw_documents
from cots.data.sources.documents.stationery import Stationery
from cots.errors import BadInput

WORDS = Path(__file__).parents[3] / "cots/data/documents.yaml"
STATIONERY = Stationery.load(WORDS)


def draw(*, seed: int = 0, width: int = 48, train: int = 10, test: int = 5) -> list[Sample]:
    parts = draw_documents(WORDS, seed=seed, width=width, pages={"train": train, "val": 0, "test": test})
    return [sample for part in parts for sample in part.read()]


def pages(count: int) -> list[Page]:
    rngs = map(np.random.default_rng, range(count))
    return [sample_page(rng, STATIONERY, CLASSES[number % len(CLASSES)]) for number, rng in enumerate(rngs)]


def test_a_seed_draws_the_same_pages_and_no_page_depends_on_how_many_there_are() -> None:
    samples = draw()
    assert samples == draw()
    assert samples[:4] + samples[10:] == draw(train=4)
    assert all(first != second for first, second in zip(samples, draw(seed=1), strict=True))
    assert len({sample.captions for sample in samples}) == len(samples)


def test_each_page_is_an_image_with_one_text_and_its_class_and_the_classes_take_turns() -> None:
    samples = draw(train=20)
    assert [sample.id for sample in samples[18:22]] == ["train-00018", "train-00019", "test-00000", "test-00001"]
    assert {number for number in Counter(sample.metadata["class"] for sample in samples).values()} == {5}
    for sample in samples:
        assert isinstance(sample.content, bytes)
        with Image.open(io.BytesIO(sample.content)) as image:
            assert (image.format, image.size) == ("JPEG", (48, 68))
        [text] = sample.captions
        assert sample.metadata["sender"] in text
        assert len(text) < 500  # prepare.max_caption_chars


def test_the_words_stand_on_the_page_and_the_text_reads_them_line_by_line() -> None:
    for page in pages(60):
        assert all(0 <= words.x < WIDTH and 0 <= words.y < HEIGHT for words in page.words)
        assert all(box.x + box.width <= RIGHT + 1 and box.y + box.height < HEIGHT for box in page.boxes)
        rows = sorted({words.y for words in page.words})
        lines = [sorted((words.x, words.text) for words in page.words if words.y == y) for y in rows]
        assert page.text == " ".join(text for line in lines for _, text in line)


def test_every_word_leaves_ink_and_the_sender_a_logo_of_its_colour() -> None:
    still = STATIONERY.look.model_copy(update={"skew": 0.0, "grain": 0.0})
    for page in pages(10):
        whole = draw_page(page, still, np.random.default_rng(0), width=96)
        logo = np.asarray(whole)[round(13 * 0.96), round((page.logo_x + 6) * 0.96)]
        assert np.abs(logo.astype(int) - page.style.colour).max() <= 2
        for words in page.words:
            page_without = Page(
                document_class=page.document_class,
                sender=page.sender,
                style=page.style,
                logo_x=page.logo_x,
                words=[other for other in page.words if other is not words],
                boxes=page.boxes,
            )
            without = draw_page(page_without, still, np.random.default_rng(0), width=96)
            assert whole.tobytes() != without.tobytes(), words


def test_neither_titles_nor_layout_alone_say_the_class_of_every_page() -> None:
    titles = {title for titles in STATIONERY.titles.values() for title in titles}
    drawn = pages(300)
    titled = {name: [] for name in CLASSES}  # type: dict[str, list[bool]]
    boxed = {name: [] for name in CLASSES}  # type: dict[str, list[bool]]
    for page in drawn:
        titled[page.document_class].append(any(words.text in titles for words in page.words))
        boxed[page.document_class].append(any(not box.filled for box in page.boxes))
    for name in CLASSES:
        assert 0.2 < np.mean(titled[name]) < 0.6
        assert 0 < np.mean(boxed[name]) < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"goods": ["pens"]}, "goods: Tuple should have at least 8 items"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"look": {}}, "look.titled: Field required"),
    ],
)
def test_a_wrong_file_of_words_is_told_in_one_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = tmp_path / "words.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(WORDS.read_text()) | change))
    with pytest.raises(BadInput, match=message) as error:
        Stationery.load(file)
    assert "\n" not in str(error.value)


def test_a_missing_file_of_words_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no\.yaml: No such file or directory; set source\.path"):
        next(draw_documents(tmp_path / "no.yaml", seed=0, width=48, pages={"train": 1, "val": 0, "test": 0}))
