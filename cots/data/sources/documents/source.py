"""Reader of source `documents`: draws pages with their text and class from a file of words and a seed."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cots.data.images import encode_jpeg
from cots.data.samples import SPLITS, Sample, Split
from cots.data.sources.documents.drawing import draw_page
from cots.data.sources.documents.layout import CLASSES, sample_page
from cots.data.sources.documents.stationery import Stationery
from cots.data.sources.layout_io import make_sample


def draw_documents(path: Path, *, seed: int, width: int, pages: Mapping[Split, int]) -> Iterator[Sample]:
    """Draw the pages of all splits; the same arguments give the same bytes.

    Each page is a function of seed, split and number, so that no other page changes it. The classes take turns.

    Args:
        path: the file of words.
        seed: of everything random.
        width: of the pages, pixels.
        pages: number of pages by split.

    Raises:
        BadInput: the file cannot be used.
    """
    stationery = Stationery.load(path)
    for split in SPLITS:
        for number in range(pages[split]):
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
