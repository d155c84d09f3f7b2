"""The keys of source `documents`."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cots.config_base import Config, Seed
from cots.data.samples import Sample
from cots.data.sources.parts import Part
from cots.data.sources.scenes.config import SplitCountsConfig


class DocumentsSourceConfig(Config):
    """Drawn documents: letters, invoices, forms, memos and tables with their text, from a file of words and a seed."""

    kind: Literal["documents"] = Field(default="documents", description="Drawn documents: needs no data.")
    path: Path = Field(
        default=Path("cots/data/documents.yaml"),
        description="File of names, words and probabilities. Real pages are `kind: folder`. See "
        "[documents.md](documents.md).",
    )
    seed: Seed = Field(default=0, description="Seed of the documents.")
    width: Annotated[int, Field(ge=32, le=2000)] = Field(default=96, description="Width of the pages, pixels.")
    pages: SplitCountsConfig = Field(
        default=SplitCountsConfig(train=1000, val=100, test=400), description="Number of pages in each split."
    )

    def read(self) -> Iterator[Sample]:
        """Draw the samples; column `class` holds the class, `sender` the sender."""
        return chain.from_iterable(part.read() for part in self.parts())

    def parts(self) -> Iterator[Part]:
        """Some pages of one split each."""
        from cots.data.sources.documents.source import draw_documents  # numpy, Pillow, matplotlib: not for parameters

        return draw_documents(**self.model_dump(exclude={"kind"}))
