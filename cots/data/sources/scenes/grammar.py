"""The vocabulary and probabilities of drawn scenes: `scenes.yaml`, validated."""

import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from cots.data.sources.yaml_file import YamlPart, load_yaml

Synonyms = Annotated[list[str], Field(min_length=1)]
Rgb = tuple[int, int, int]
Probability = Annotated[float, Field(ge=0, le=1)]
ShapeColour = tuple[str, str]  # names of a shape and a colour


class Named(YamlPart):
    """Something that captions call by one of several synonyms."""

    words: Synonyms


class Colour(Named):
    """A colour of objects."""

    rgb: Rgb


class Size(Named):
    """A size: `across` is the diameter of the object's circumcircle, as a fraction of the image's side."""

    across: Annotated[float, Field(gt=0, lt=1)]


class Background(Named):
    """A background that fades from the first colour at the top to the second at the bottom."""

    rgb: tuple[Rgb, Rgb]


class Appearance(YamlPart):
    """How scenes vary beyond what captions say."""

    contrast: float
    grain: float
    tint: int
    tilt: float
    scale: float
    apart: float
    objects: dict[int, Probability]
    bystander: Probability


class Unseen(YamlPart):
    """Pairs of shape and colour that only the test split has, and how many of its scenes begin with one."""

    share: Probability
    pairs: dict[str, list[str]]


class MentionOdds(YamlPart):
    """Probabilities that a caption mentions a detail."""

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
    short: Probability = 0.0


class SentencePatterns(YamlPart):
    """How the parts of a caption are joined."""

    nameless: Synonyms
    opening: Synonyms
    pair: Synonyms
    third: Synonyms
    bystander: Synonyms
    background: Synonyms


class Grammar(YamlPart):
    """All of `scenes.yaml`."""

    shapes: dict[str, Named]
    round: list[str]
    colours: dict[str, Colour]
    textures: dict[str, Named]
    sizes: dict[str, Size]
    backgrounds: dict[str, Background]
    look: Appearance
    unseen: Unseen
    relations: dict[str, Synonyms]
    motions: dict[str, Synonyms]
    mention: MentionOdds
    sentences: SentencePatterns

    @model_validator(mode="after")
    def _unseen_pairs_exist(self) -> Self:
        unknown = [pair for pair in self.unseen_pairs() if pair[0] not in self.shapes or pair[1] not in self.colours]
        if unknown:
            raise ValueError(f"unseen.pairs names unknown shapes or colours: {unknown}")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and validate a grammar.

        Raises:
            BadInput: no such file, not YAML, or wrong keys or values.
        """
        return load_yaml(cls, path, "the scenes' grammar")

    def unseen_pairs(self) -> list[ShapeColour]:
        """Pairs that only the test split has."""
        return [(shape, colour) for shape, colours in self.unseen.pairs.items() for colour in colours]

    @cached_property
    def seen_on(self) -> dict[str, list[ShapeColour]]:
        """Per background, the pairs that stand out from it and that all splits have."""
        unseen = set(self.unseen_pairs())
        pairs = [(shape, colour) for shape in self.shapes for colour in self.colours]
        return self._by_background([pair for pair in pairs if pair not in unseen])

    @cached_property
    def unseen_on(self) -> dict[str, list[ShapeColour]]:
        """Per background, the pairs that stand out from it and that only the test split has."""
        return self._by_background(self.unseen_pairs())

    def _by_background(self, pairs: list[ShapeColour]) -> dict[str, list[ShapeColour]]:
        return {name: [pair for pair in pairs if self._stands_out(pair[1], name)] for name in self.backgrounds}

    def _stands_out(self, colour: str, background: str) -> bool:
        rgb, contrast = self.colours[colour].rgb, self.look.contrast
        return all(math.dist(rgb, ground) >= contrast for ground in self.backgrounds[background].rgb)
