"""The vocabulary and the probabilities of the drawn scenes: `scenes.yaml`, checked."""

import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cots.errors import BadInput

Words = Annotated[list[str], Field(min_length=1)]
Rgb = tuple[int, int, int]
Probability = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[str, str]  # shape, colour


class Part(BaseModel):
    """A part of the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Named(Part):
    """Something with synonyms."""

    words: Words


class Colour(Named):
    """A colour of things."""

    rgb: Rgb


class Size(Named):
    """A size: the diameter of the circle around the thing, as a share of the picture's side."""

    across: Annotated[float, Field(gt=0, lt=1)]


class Background(Named):
    """A ground that fades from the first colour at the top to the second."""

    rgb: tuple[Rgb, Rgb]


class Look(Part):
    """How scenes vary beyond what captions say."""

    contrast: float
    grain: float
    tint: int
    tilt: float
    scale: float
    apart: float
    objects: dict[int, Probability]
    bystander: Probability


class Unseen(Part):
    """Pairs of shape and colour that only the test split shows."""

    share: Probability
    pairs: dict[str, list[str]]


class Mention(Part):
    """How often a caption says what could be said."""

    colour: Probability
    shape: Probability
    texture: Probability
    plain: Probability
    size: Probability
    second: Probability
    third: Probability
    relation: Probability
    background: Probability
    motion: Probability


class Sentences(Part):
    """How parts of a caption are joined."""

    nameless: Words
    opening: Words
    pair: Words
    third: Words
    bystander: Words
    background: Words


class Grammar(Part):
    """All of `scenes.yaml`."""

    shapes: dict[str, Named]
    round: list[str]
    colours: dict[str, Colour]
    textures: dict[str, Named]
    sizes: dict[str, Size]
    backgrounds: dict[str, Background]
    look: Look
    unseen: Unseen
    relations: dict[str, Words]
    motions: dict[str, Words]
    mention: Mention
    sentences: Sentences

    @model_validator(mode="after")
    def _unseen_pairs_exist(self) -> Self:
        unknown = [pair for pair in self.unseen_pairs() if pair[0] not in self.shapes or pair[1] not in self.colours]
        if unknown:
            raise ValueError(f"unseen.pairs names unknown shapes or colours: {unknown}")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check a grammar.

        Raises:
            BadInput: no such file, not YAML, or wrong keys and values.
        """
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf8")))
        except OSError as error:
            raise BadInput(f"cannot read the scenes' grammar {path}: {error.strerror}; set source.path") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput(f"the scenes' grammar {path} is not YAML: {' '.join(str(error).split())}") from None
        except ValidationError as error:
            mistakes = [f"{'.'.join(map(str, e['loc'])) or 'grammar'}: {e['msg']}" for e in error.errors()]
            raise BadInput(f"{path}: {len(mistakes)} mistake(s): " + "; ".join(mistakes)) from None

    def unseen_pairs(self) -> list[Pair]:
        """Pairs that only the test split shows."""
        return [(shape, colour) for shape, colours in self.unseen.pairs.items() for colour in colours]

    @cached_property
    def seen_on(self) -> dict[str, list[Pair]]:
        """Per background, the pairs that can be told from it and that every split shows."""
        unseen = set(self.unseen_pairs())
        pairs = [(shape, colour) for shape in self.shapes for colour in self.colours]
        return self._standing_out([pair for pair in pairs if pair not in unseen])

    @cached_property
    def unseen_on(self) -> dict[str, list[Pair]]:
        """Per background, the pairs that can be told from it and that only the test split shows."""
        return self._standing_out(self.unseen_pairs())

    def _standing_out(self, pairs: list[Pair]) -> dict[str, list[Pair]]:
        return {ground: [pair for pair in pairs if self._stands_out(pair[1], ground)] for ground in self.backgrounds}

    def _stands_out(self, colour: str, background: str) -> bool:
        rgb, contrast = self.colours[colour].rgb, self.look.contrast
        return all(math.dist(rgb, ground) >= contrast for ground in self.backgrounds[background].rgb)
