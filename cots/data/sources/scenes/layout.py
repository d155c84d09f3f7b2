"""What a drawn scene holds and where: chosen at random, before anything is drawn or said."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from cots.data.sources.scenes.grammar import Grammar, Pair

T = TypeVar("T")
MOTIONS = ("right", "left", "down", "up", "bounce", "grow", "shrink", "spin")


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """One drawn shape.

    Attributes:
        x: of its centre, share of the picture's side, from the left.
        y: from the top.
        across: diameter of the circle around it, share of the picture's side.
        turn: radians, clockwise.
        rgb: its colour, slightly off the named one.
    """

    shape: str
    colour: str
    texture: str
    size: str
    x: float
    y: float
    across: float
    turn: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A picture, or a clip in which the first thing moves.

    Attributes:
        motion: how the first thing moves; none in a picture.
    """

    background: str
    objects: tuple[SceneObject, ...]
    motion: str | None


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One of the items, each as likely."""
    return items[int(rng.integers(len(items)))]


def sample_image_scene(rng: np.random.Generator, grammar: Grammar, *, unseen: bool) -> Scene:
    """A scene at rest; with `unseen`, its first thing is a pair that train never shows."""
    objects = grammar.look.objects
    number = int(rng.choice(list(objects), p=list(objects.values())))
    return _imagine(rng, grammar, number=number, unseen=unseen, motion=None)


def sample_video_scene(rng: np.random.Generator, grammar: Grammar, *, unseen: bool) -> Scene:
    """A scene whose first thing moves, at times beside one that rests."""
    number = 1 + int(rng.random() < grammar.look.bystander)
    return _imagine(rng, grammar, number=number, unseen=unseen, motion=pick(rng, list(grammar.motions)))


def _imagine(rng: np.random.Generator, grammar: Grammar, *, number: int, unseen: bool, motion: str | None) -> Scene:
    """Throw scenes until one has room for its things."""
    while True:
        background = pick(rng, list(grammar.backgrounds))
        pairs = _pairs(rng, grammar, background, number=number, unseen=unseen)
        things = tuple(_thing(rng, grammar, pair) for pair in pairs)
        scene = Scene(background=background, objects=things, motion=motion)
        if _has_room(scene, grammar) and not (motion == "spin" and things[0].shape in grammar.round):
            return scene


def _pairs(rng: np.random.Generator, grammar: Grammar, background: str, *, number: int, unseen: bool) -> list[Pair]:
    chosen = [pick(rng, (grammar.unseen_on if unseen else grammar.seen_on)[background])]
    while len(chosen) < number:
        pair = pick(rng, grammar.seen_on[background])
        if pair not in chosen:
            chosen.append(pair)
    return chosen


def _thing(rng: np.random.Generator, grammar: Grammar, pair: Pair) -> SceneObject:
    look, size = grammar.look, pick(rng, list(grammar.sizes))
    across = grammar.sizes[size].across * (1 + rng.uniform(-look.scale, look.scale))
    x, y = rng.uniform(across / 2, 1 - across / 2, size=2)
    tint = rng.integers(-look.tint, look.tint, size=3, endpoint=True).tolist()
    red, green, blue = (min(max(c + t, 0), 255) for c, t in zip(grammar.colours[pair[1]].rgb, tint, strict=True))
    return SceneObject(
        shape=pair[0],
        colour=pair[1],
        texture=pick(rng, list(grammar.textures)),
        size=size,
        x=float(x),
        y=float(y),
        across=float(across),
        turn=float(rng.uniform(-look.tilt, look.tilt)),
        rgb=(red, green, blue),
    )


def _has_room(scene: Scene, grammar: Grammar) -> bool:
    """Whether the circles around the things keep apart, all along the motion."""
    for frame in (scene.objects,) if scene.motion is None else (f.objects for f in frames_of(scene, 12)):
        for i, a in enumerate(frame):
            for b in frame[:i]:
                if math.dist((a.x, a.y), (b.x, b.y)) < (a.across + b.across) / 2 + grammar.look.apart:
                    return False
    return True


def frames_of(scene: Scene, number: int) -> list[Scene]:
    """The scene at evenly spaced moments, first and last included; without motion the same each time."""
    moments = [i / max(number - 1, 1) for i in range(number)]
    return [replace(scene, objects=(_moved(scene.objects[0], scene.motion, t), *scene.objects[1:])) for t in moments]


def _moved(thing: SceneObject, motion: str | None, t: float) -> SceneObject:
    near, far = thing.across / 2, 1 - thing.across / 2
    match motion:
        case "right" | "left":
            along = t if motion == "right" else 1 - t
            return replace(thing, x=near + along * (far - near))
        case "down" | "up":
            along = t if motion == "down" else 1 - t
            return replace(thing, y=near + along * (far - near))
        case "bounce":
            return replace(thing, y=far - abs(math.sin(2 * math.pi * t)) * (far - near) * 0.7)
        case "grow" | "shrink":
            along = t if motion == "grow" else 1 - t
            return replace(thing, across=thing.across * (0.4 + 0.6 * along))
        case "spin":
            return replace(thing, turn=thing.turn + t * math.radians(250))
        case _:
            return thing
