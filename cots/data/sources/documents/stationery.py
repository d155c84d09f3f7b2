"""What drawn documents are made of: `documents.yaml`, validated."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from cots.data.sources.yaml_file import YamlPart, load_yaml

DocumentClass = Literal["letter", "invoice", "form", "memo", "table"]
Probability = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[int, Field(ge=0, le=255)]
Words = Annotated[tuple[str, ...], Field(min_length=1)]
ManyWords = Annotated[tuple[str, ...], Field(min_length=8)]  # of which a page takes several that differ


class Sender(YamlPart):
    """Who writes: the logo's shape and colour, and the typeface."""

    shape: Literal["circle", "square", "triangle", "diamond"]
    colour: tuple[Level, Level, Level]
    font: Literal["sans", "serif"]


class Look(YamlPart):
    """How pages differ; docs/documents.md and the comments of the file say how."""

    titled: Probability
    ruled: Probability
    lists: Probability
    stamped: Probability
    skew: Annotated[float, Field(ge=0, le=10)]
    grain: Annotated[float, Field(ge=0, le=64)]


class Stationery(YamlPart):
    """Names, words and probabilities of drawn documents."""

    senders: Annotated[dict[str, Sender], Field(min_length=1)]
    people: Words
    cities: Words
    months: Words
    goods: ManyWords
    fields: ManyWords
    sentences: ManyWords
    stamps: Words
    titles: Annotated[dict[DocumentClass, Words], Field(min_length=5)]
    look: Look

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            BadInput: it cannot be read or used.
        """
        return load_yaml(cls, path, "the words of documents")
