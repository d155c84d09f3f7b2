"""Lays out drawn documents: which words, lines and boxes stand where; the text of a page is what stands on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from cots.data.sources.documents.stationery import DocumentClass, Sender, Stationery
from cots.data.sources.scenes.layout import pick

WIDTH, HEIGHT = 100, 141  # of a page in its own units, as A4
LEFT, RIGHT = 8, 92  # margins
LINE = 7  # from one line of text to the next
TEXT, TITLE = 4.5, 8.0  # heights of letters
COLUMNS = (10, 46, 70)  # of lists, where their cells begin
CLASSES: tuple[DocumentClass, ...] = get_args(DocumentClass)
MAX_PIECES, MAX_PRICE = 9, 99  # of a good


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Some words that begin at (x, y), the upper left corner."""

    x: float
    y: float
    text: str
    size: float = TEXT
    bold: bool = False
    stamp: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle: an outline, or filled as a bar or a rule."""

    x: float
    y: float
    width: float
    height: float
    filled: bool = False


@dataclass(slots=True, kw_only=True)
class Page:
    """A document; the composing functions below add to it from top to bottom.

    Attributes:
        document_class: what it is.
        sender: name of the sender.
        style: the sender's logo and typeface.
        logo_x: where the logo begins.
        y: where the next line begins.
    """

    document_class: DocumentClass
    sender: str
    style: Sender
    logo_x: float
    y: float = 26
    words: list[Words] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All words, line by line."""
        return " ".join(words.text for words in sorted(self.words, key=lambda words: (words.y, words.x)))

    def write(self, text: str, *, x: float = LEFT, size: float = TEXT, bold: bool = False) -> None:
        """Add words to the current line."""
        self.words.append(Words(x=x, y=self.y, text=text, size=size, bold=bold))

    def write_line(self, text: str, *, x: float = LEFT, size: float = TEXT, bold: bool = False) -> None:
        """Add words and go to the next line."""
        self.write(text, x=x, size=size, bold=bold)
        self.y += max(LINE, size + 2)

    def rule(self, height: float = 0.7) -> None:
        """Draw a line across the page above the current line."""
        self.boxes.append(Box(x=LEFT, y=self.y - 1.5, width=RIGHT - LEFT, height=height, filled=True))


Composer = Callable[[np.random.Generator, Stationery, Page], None]


def sample_page(rng: np.random.Generator, stationery: Stationery, document_class: DocumentClass) -> Page:
    """A random document of a class."""
    sender = pick(rng, list(stationery.senders))
    logo_x = pick(rng, (LEFT, RIGHT - 12))
    page = Page(document_class=document_class, sender=sender, style=stationery.senders[sender], logo_x=logo_x)
    beside = LEFT if logo_x > LEFT else LEFT + 16
    day = f"{int(rng.integers(1, 29))} {pick(rng, stationery.months)}"
    page.words.append(Words(x=beside, y=7, text=sender, size=6, bold=True))
    page.words.append(Words(x=beside, y=15, text=f"{pick(rng, stationery.cities)} {day}"))
    if rng.random() < stationery.look.titled:
        page.write_line(pick(rng, stationery.titles[document_class]), size=TITLE, bold=True)
    COMPOSERS[document_class](rng, stationery, page)
    if rng.random() < stationery.look.stamped:
        x = float(rng.uniform(LEFT, 55))
        page.words.append(Words(x=x, y=126, text=pick(rng, stationery.stamps), size=10, bold=True, stamp=True))
    return page


def pick_several(rng: np.random.Generator, items: Sequence[str], low: int, high: int) -> list[str]:
    """From `low` to `high` items, in random order, none twice."""
    return [items[row] for row in rng.permutation(len(items))[: int(rng.integers(low, high + 1))]]


def _compose_letter(rng: np.random.Generator, stationery: Stationery, page: Page) -> None:
    page.write_line(pick(rng, stationery.people))
    page.write_line(pick(rng, stationery.cities))
    page.y += LINE
    _write_sentences(rng, stationery, page, 3, 6)
    if rng.random() < stationery.look.lists:
        _write_list(rng, stationery, page, 2, 3)
    page.y += LINE
    page.write_line(pick(rng, stationery.people), x=55)
    page.rule()


def _compose_invoice(rng: np.random.Generator, stationery: Stationery, page: Page) -> None:
    page.write_line(pick(rng, stationery.people))
    page.write_line(pick(rng, stationery.cities))
    page.y += LINE
    total = _write_list(rng, stationery, page, 2, 5)
    page.y += 2
    _write_total(rng, stationery, page, total)
    _write_sentences(rng, stationery, page, 0, 1)


def _compose_form(rng: np.random.Generator, stationery: Stationery, page: Page) -> None:
    ruled = rng.random() < stationery.look.ruled
    for label in pick_several(rng, stationery.fields, 4, 7):
        page.write(label)
        if ruled:
            page.boxes.append(Box(x=40, y=page.y - 1, width=RIGHT - 40, height=LINE + 1))
        if rng.random() < 0.5:
            page.write(pick(rng, (*stationery.people, *stationery.cities)), x=43)
        page.y += LINE + 4


def _compose_memo(rng: np.random.Generator, stationery: Stationery, page: Page) -> None:
    ruled = rng.random() < stationery.look.ruled
    if ruled:
        page.rule(height=3)
    page.y += 4
    page.write_line(pick(rng, stationery.people))
    page.write_line(pick(rng, stationery.people))
    if ruled:
        page.rule()
    page.y += 3
    _write_sentences(rng, stationery, page, 2, 5)
    if rng.random() < stationery.look.lists:
        _write_list(rng, stationery, page, 2, 3)


def _compose_table(rng: np.random.Generator, stationery: Stationery, page: Page) -> None:
    total = _write_list(rng, stationery, page, 4, 8)
    if rng.random() < stationery.look.lists:
        _write_total(rng, stationery, page, total)
    _write_sentences(rng, stationery, page, 0, 1)


def _write_sentences(rng: np.random.Generator, stationery: Stationery, page: Page, low: int, high: int) -> None:
    for sentence in pick_several(rng, stationery.sentences, low, high):
        page.write_line(sentence)


def _write_list(rng: np.random.Generator, stationery: Stationery, page: Page, low: int, high: int) -> int:
    """Write rows of goods, numbers and prices, and return what all cost."""
    ruled, total = rng.random() < stationery.look.ruled, 0
    for good in pick_several(rng, stationery.goods, low, high):
        pieces, price = int(rng.integers(1, MAX_PIECES + 1)), int(rng.integers(1, MAX_PRICE + 1))
        if ruled:
            edges = (LEFT, *(x - 2 for x in COLUMNS[1:]), RIGHT)
            widths = np.diff(edges).tolist()
            cells = zip(edges, widths, strict=False)
            page.boxes += [Box(x=x, y=page.y - 1.5, width=width, height=LINE) for x, width in cells]
        for x, cell in zip(COLUMNS, (good, str(pieces), str(price)), strict=True):
            page.write(cell, x=x)
        page.y += LINE
        total += pieces * price
    return total


def _write_total(rng: np.random.Generator, stationery: Stationery, page: Page, total: int) -> None:
    label = "Total " if rng.random() < stationery.look.titled else ""
    page.write_line(f"{label}{total}", x=COLUMNS[1], size=6, bold=True)


COMPOSERS: dict[DocumentClass, Composer] = {
    "letter": _compose_letter,
    "invoice": _compose_invoice,
    "form": _compose_form,
    "memo": _compose_memo,
    "table": _compose_table,
}
