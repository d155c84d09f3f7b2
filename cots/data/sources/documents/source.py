"""Reader of source `documents`: draws pages with their text and class from a file of words and a seed."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from cots.data.images import encode_jpeg
from cots.data.samples import SPLITS, Sample, Split
from cots.data.sources.documents.drawing import draw_page
from cots.data.sources.documents.layout import CLASSES, sample_page
from cots.data.sources.documents.stationery import Stationery
from cots.data.sources.layout_io import make_sample
from cots.data.sources.parts import PART_SIZE, Part


def draw_documents(path: Path, *, seed: int, width: int, pages: Mapping[Split, int]) -> Iterator[Part]:
    """Draw the pages of all splits; the same arguments give the same bytes.

    Each page is a function of seed, split and number, so that no other page changes it. The classes take turns.

    Args:
        path: the file of words.
        seed: of everything random.
        width: of the pages, pixels.
        pages: number of pages by split.

    Returns:
        Parts, which draw their pages when they are read, by the file as it is now.

    Raises:
        BadInput: the file cannot be used.
    """
    stationery = Stationery.load(path)
    for split in SPLITS:
        for start in range(0, pages[split], PART_SIZE):
            numbers = range(start, min(start + PART_SIZE, pages[split]))
            name = f"{split}-{start:05d}"
            draw = partial(_draw, stationery, split, numbers, seed=seed, width=width)
            yield Part(name, draw, partial(repr, (stationery, name)))


def _draw(stationery: Stationery, split: Split, numbers: Iterable[int], *, seed: int, width: int) -> Iterator[Sample]:
    for number in numbers:
        rng = np.random.default_rng([seed, SPLITS.index(split), number])
        document_class = CLASSES[number % len(CLASSES)]
        page = sample_page(rng, stationery, document_class)
        image = draw_page(page, stationery.look, rng, width=width)
        yield make_sample(
            f"{split}-{number:05d}",
            encode_jpeg(image),
            page.text,
            split=split,
            origin=f"drawn: {document_class} of {page.sender}",
            metadata={"class": document_class, "sender": page.sender},
        )
