"""What a person might say of a drawn scene: first what to tell, then in which words."""

from dataclasses import dataclass

import numpy as np

from cots.data.sources.scenes.grammar import Grammar
from cots.data.sources.scenes.layout import Scene, SceneObject, pick


@dataclass(frozen=True, slots=True, kw_only=True)
class Mentioned:
    """What is said of one thing; a detail that is none is left out."""

    shape: str | None
    colour: str | None
    texture: str | None
    size: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a caption tells.

    Attributes:
        things: those mentioned, in the order in which they are told.
        relation: where the first stands, seen from the second.
    """

    things: tuple[Mentioned, ...]
    relation: str | None
    background: str | None
    motion: str | None


def relation_between(a: SceneObject, b: SceneObject) -> str:
    """Where `a` stands, seen from `b`, along the axis on which they are farther apart."""
    if abs(a.x - b.x) >= abs(a.y - b.y):
        return "left" if a.x < b.x else "right"
    return "above" if a.y < b.y else "below"


def caption(rng: np.random.Generator, grammar: Grammar, scene: Scene) -> str:
    """One sentence about the scene, with details left out as people leave them out."""
    return put_in_words(rng, grammar, tell(rng, grammar, scene))


def tell(rng: np.random.Generator, grammar: Grammar, scene: Scene) -> Statement:
    """Choose what to say; all of it is true of the scene."""
    odds = grammar.mention
    told = _told(rng, grammar, scene)
    relation = None
    if len(told) > 1 and scene.motion is None and rng.random() < odds.relation:
        relation = relation_between(told[0], told[1])
    return Statement(
        things=tuple(_mention(rng, grammar, thing, still=scene.motion is None) for thing in told),
        relation=relation,
        background=scene.background if rng.random() < odds.background else None,
        motion=scene.motion if rng.random() < odds.motion else None,
    )


def _told(rng: np.random.Generator, grammar: Grammar, scene: Scene) -> list[SceneObject]:
    """The things that are mentioned: the moving one first, else larger ones rather than smaller, then in any order."""
    odds = (1.0, grammar.mention.second, grammar.mention.third)
    if scene.motion is not None:
        return [thing for thing, p in zip(scene.objects, odds, strict=False) if rng.random() < p]
    by_size = sorted(scene.objects, key=lambda thing: -thing.across)
    told = [thing for thing, p in zip(by_size, odds, strict=False) if rng.random() < p]
    return [told[i] for i in rng.permutation(len(told))]


def _mention(rng: np.random.Generator, grammar: Grammar, thing: SceneObject, *, still: bool) -> Mentioned:
    odds = grammar.mention
    texture_odds = odds.plain if thing.texture == "plain" else odds.texture
    return Mentioned(
        shape=thing.shape if rng.random() < odds.shape else None,
        colour=thing.colour if rng.random() < odds.colour else None,
        texture=thing.texture if rng.random() < texture_odds else None,
        size=thing.size if still and rng.random() < odds.size else None,
    )


def put_in_words(rng: np.random.Generator, grammar: Grammar, statement: Statement) -> str:
    """Say it, with one of the synonyms for each thing said."""
    sentences = grammar.sentences
    names = [_noun_phrase(rng, grammar, thing) for thing in statement.things]
    said = _moving(rng, grammar, statement, names) if statement.motion else _resting(rng, grammar, statement, names)
    if statement.background is not None:
        ground = pick(rng, grammar.backgrounds[statement.background].words)
        said = pick(rng, sentences.background).format(said=said, background=ground)
    return said if statement.motion else pick(rng, sentences.opening) + said


def _moving(rng: np.random.Generator, grammar: Grammar, statement: Statement, names: list[str]) -> str:
    assert statement.motion is not None
    said = f"{names[0]} {pick(rng, grammar.motions[statement.motion])}"
    return pick(rng, grammar.sentences.bystander).format(said=said, b=names[1]) if len(names) > 1 else said


def _resting(rng: np.random.Generator, grammar: Grammar, statement: Statement, names: list[str]) -> str:
    said = names[0]
    if statement.relation is not None:
        said = f"{names[0]} {pick(rng, grammar.relations[statement.relation])} {names[1]}"
    elif len(names) > 1:
        said = pick(rng, grammar.sentences.pair).format(a=names[0], b=names[1])
    return pick(rng, grammar.sentences.third).format(said=said, c=names[2]) if len(names) > 2 else said


def _noun_phrase(rng: np.random.Generator, grammar: Grammar, thing: Mentioned) -> str:
    vocabulary = ((grammar.sizes, thing.size), (grammar.colours, thing.colour), (grammar.textures, thing.texture))
    words = [pick(rng, words[name].words) for words, name in vocabulary if name is not None]
    words.append(pick(rng, grammar.shapes[thing.shape].words if thing.shape else grammar.sentences.nameless))
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])
