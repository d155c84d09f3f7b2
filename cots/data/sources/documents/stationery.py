"""What drawn documents are made of: `documents.yaml`, validated."""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cots.errors import BadInput

DocumentClass = Literal["letter", "invoice", "form", "memo", "table"]
Probability = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[int, Field(ge=0, le=255)]
Words = Annotated[tuple[str, ...], Field(min_length=1)]
ManyWords = Annotated[tuple[str, ...], Field(min_length=8)]  # of which a page takes several that differ


class StationeryPart(BaseModel):
    """A mapping of the file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Sender(StationeryPart):
    """Who writes: the logo's shape and colour, and the typeface."""

    shape: Literal["circle", "square", "triangle", "diamond"]
    colour: tuple[Level, Level, Level]
    font: Literal["sans", "serif"]


class Look(StationeryPart):
    """How pages differ; docs/documents.md and the comments of the file say how."""

    titled: Probability
    ruled: Probability
    lists: Probability
    stamped: Probability
    skew: Annotated[float, Field(ge=0, le=10)]
    grain: Annotated[float, Field(ge=0, le=64)]


class Stationery(StationeryPart):
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
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf8")))
        except OSError as error:
            raise BadInput(f"cannot read the words of documents {path}: {error.strerror}; set source.path") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())}") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None
