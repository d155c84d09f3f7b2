"""Captions of drawn scenes, as people might write them: first what to mention, then in which words."""

from dataclasses import dataclass

import numpy as np

from cots.data.sources.scenes.grammar import Grammar
from cots.data.sources.scenes.layout import Scene, SceneObject, pick


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMention:
    """What a caption says of one object; a detail that is None is left out."""

    shape: str | None
    colour: str | None
    texture: str | None
    size: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a caption says.

    Attributes:
        objects: those mentioned, in order of mention.
        relation: where the first is, seen from the second.
    """

    objects: tuple[ObjectMention, ...]
    relation: str | None
    background: str | None
    motion: str | None


def sample_caption(rng: np.random.Generator, grammar: Grammar, scene: Scene) -> str:
    """One sentence about the scene; it leaves out details as people do."""
    return put_in_words(rng, grammar, sample_statement(rng, grammar, scene))


def sample_short_caption(rng: np.random.Generator, grammar: Grammar, scene: Scene) -> str:
    """Colour and shape of the object that a longer caption would name first, such as people type as a query."""
    item = _sample_mentioned(rng, grammar, scene)[0]
    return _noun_phrase(rng, grammar, ObjectMention(shape=item.shape, colour=item.colour, texture=None, size=None))


def sample_statement(rng: np.random.Generator, grammar: Grammar, scene: Scene) -> Statement:
    """Choose what to say; all of it is true of the scene."""
    odds = grammar.mention
    mentioned = _sample_mentioned(rng, grammar, scene)
    relation = None
    if len(mentioned) > 1 and scene.motion is None and rng.random() < odds.relation:
        relation = relation_between(mentioned[0], mentioned[1])
    return Statement(
        objects=tuple(_sample_details(rng, grammar, item, still=scene.motion is None) for item in mentioned),
        relation=relation,
        background=scene.background if rng.random() < odds.background else None,
        motion=scene.motion if rng.random() < odds.motion else None,
    )


def relation_between(a: SceneObject, b: SceneObject) -> str:
    """Where `a` is, seen from `b`, along the axis on which they are farther apart."""
    if abs(a.x - b.x) >= abs(a.y - b.y):
        return "left" if a.x < b.x else "right"
    return "above" if a.y < b.y else "below"


def _sample_mentioned(rng: np.random.Generator, grammar: Grammar, scene: Scene) -> list[SceneObject]:
    """The objects to mention: in a video the moving one first; in an image rather the larger ones, in any order."""
    odds = (1.0, grammar.mention.second, grammar.mention.third)
    if scene.motion is not None:
        return [item for item, p in zip(scene.objects, odds, strict=False) if rng.random() < p]
    by_size = sorted(scene.objects, key=lambda item: -item.diameter)
    mentioned = [item for item, p in zip(by_size, odds, strict=False) if rng.random() < p]
    return [mentioned[i] for i in rng.permutation(len(mentioned))]


def _sample_details(rng: np.random.Generator, grammar: Grammar, item: SceneObject, *, still: bool) -> ObjectMention:
    odds = grammar.mention
    texture_odds = odds.plain if item.texture == "plain" else odds.texture
    return ObjectMention(
        shape=item.shape if rng.random() < odds.shape else None,
        colour=item.colour if rng.random() < odds.colour else None,
        texture=item.texture if rng.random() < texture_odds else None,
        size=item.size if still and rng.random() < odds.size else None,
    )


def put_in_words(rng: np.random.Generator, grammar: Grammar, statement: Statement) -> str:
    """Phrase a statement, with random synonyms."""
    patterns = grammar.sentences
    names = [_noun_phrase(rng, grammar, item) for item in statement.objects]
    clause = _motion_clause if statement.motion else _still_clause
    text = clause(rng, grammar, statement, names)
    if statement.background is not None:
        background = pick(rng, grammar.backgrounds[statement.background].words)
        text = pick(rng, patterns.background).format(said=text, background=background)
    return text if statement.motion else pick(rng, patterns.opening) + text


def _motion_clause(rng: np.random.Generator, grammar: Grammar, statement: Statement, names: list[str]) -> str:
    assert statement.motion is not None
    text = f"{names[0]} {pick(rng, grammar.motions[statement.motion])}"
    return pick(rng, grammar.sentences.bystander).format(said=text, b=names[1]) if len(names) > 1 else text


def _still_clause(rng: np.random.Generator, grammar: Grammar, statement: Statement, names: list[str]) -> str:
    text = names[0]
    if statement.relation is not None:
        text = f"{names[0]} {pick(rng, grammar.relations[statement.relation])} {names[1]}"
    elif len(names) > 1:
        text = pick(rng, grammar.sentences.pair).format(a=names[0], b=names[1])
    return pick(rng, grammar.sentences.third).format(said=text, c=names[2]) if len(names) > 2 else text


def _noun_phrase(rng: np.random.Generator, grammar: Grammar, item: ObjectMention) -> str:
    details = ((grammar.sizes, item.size), (grammar.colours, item.colour), (grammar.textures, item.texture))
    words = [pick(rng, vocabulary[name].words) for vocabulary, name in details if name is not None]
    words.append(pick(rng, grammar.shapes[item.shape].words if item.shape else grammar.sentences.nameless))
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])
