"""The content of a drawn scene: which objects, and where; sampled before anything is drawn or described."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from cots.data.sources.scenes.grammar import Grammar, ShapeColour

T = TypeVar("T")
MOTIONS = ("right", "left", "down", "up", "bounce", "grow", "shrink", "spin")


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """One drawn shape.

    Lengths are fractions of the image's side.

    Attributes:
        x: of its center, from the left.
        y: of its center, from the top.
        diameter: of its circumcircle.
        rotation: radians, clockwise.
        rgb: its colour, slightly different from the named one.
    """

    shape: str
    colour: str
    texture: str
    size: str
    x: float
    y: float
    diameter: float
    rotation: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """An image, or a video in which the first object moves.

    Attributes:
        motion: how the first object moves; None in an image.
    """

    background: str
    objects: tuple[SceneObject, ...]
    motion: str | None


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """A random item, all equally likely."""
    return items[int(rng.integers(len(items)))]


def sample_image_scene(rng: np.random.Generator, grammar: Grammar, *, unseen: bool) -> Scene:
    """A scene of an image; if `unseen`, its first object is a pair of shape and colour that train never has."""
    odds = grammar.look.objects
    num_objects = int(rng.choice(list(odds), p=list(odds.values())))
    return _sample_scene(rng, grammar, num_objects=num_objects, unseen=unseen, motion=None)


def sample_video_scene(rng: np.random.Generator, grammar: Grammar, *, unseen: bool) -> Scene:
    """A scene of a video: its first object moves, sometimes beside one that rests."""
    num_objects = 1 + int(rng.random() < grammar.look.bystander)
    motion = pick(rng, list(grammar.motions))
    return _sample_scene(rng, grammar, num_objects=num_objects, unseen=unseen, motion=motion)


def _sample_scene(
    rng: np.random.Generator, grammar: Grammar, *, num_objects: int, unseen: bool, motion: str | None
) -> Scene:
    """Sample scenes until one has room for its objects."""
    while True:
        background = pick(rng, list(grammar.backgrounds))
        pairs = _sample_pairs(rng, grammar, background, num_objects=num_objects, unseen=unseen)
        objects = tuple(_sample_object(rng, grammar, pair) for pair in pairs)
        scene = Scene(background=background, objects=objects, motion=motion)
        if _has_room(scene, grammar) and not (motion == "spin" and objects[0].shape in grammar.round):
            return scene


def _sample_pairs(
    rng: np.random.Generator, grammar: Grammar, background: str, *, num_objects: int, unseen: bool
) -> list[ShapeColour]:
    pairs = [pick(rng, (grammar.unseen_on if unseen else grammar.seen_on)[background])]
    while len(pairs) < num_objects:
        pair = pick(rng, grammar.seen_on[background])
        if pair not in pairs:
            pairs.append(pair)
    return pairs


def _sample_object(rng: np.random.Generator, grammar: Grammar, pair: ShapeColour) -> SceneObject:
    look, size = grammar.look, pick(rng, list(grammar.sizes))
    diameter = grammar.sizes[size].across * (1 + rng.uniform(-look.scale, look.scale))
    x, y = rng.uniform(diameter / 2, 1 - diameter / 2, size=2)
    tint = rng.integers(-look.tint, look.tint, size=3, endpoint=True).tolist()
    red, green, blue = (min(max(c + t, 0), 255) for c, t in zip(grammar.colours[pair[1]].rgb, tint, strict=True))
    return SceneObject(
        shape=pair[0],
        colour=pair[1],
        texture=pick(rng, list(grammar.textures)),
        size=size,
        x=float(x),
        y=float(y),
        diameter=float(diameter),
        rotation=float(rng.uniform(-look.tilt, look.tilt)),
        rgb=(red, green, blue),
    )


def _has_room(scene: Scene, grammar: Grammar) -> bool:
    """Whether the circumcircles of the objects keep apart during the whole motion."""
    moments = [scene] if scene.motion is None else frames_of(scene, 12)
    for moment in moments:
        for i, a in enumerate(moment.objects):
            for b in moment.objects[:i]:
                if math.dist((a.x, a.y), (b.x, b.y)) < (a.diameter + b.diameter) / 2 + grammar.look.apart:
                    return False
    return True


def frames_of(scene: Scene, num_frames: int) -> list[Scene]:
    """The scene at evenly spaced moments, first and last included; without motion all are the same."""
    times = [i / max(num_frames - 1, 1) for i in range(num_frames)]
    return [replace(scene, objects=(_move(scene.objects[0], scene.motion, t), *scene.objects[1:])) for t in times]


def _move(item: SceneObject, motion: str | None, t: float) -> SceneObject:
    """The object at time t in [0, 1] of its motion."""
    near, far = item.diameter / 2, 1 - item.diameter / 2
    match motion:
        case "right" | "left":
            along = t if motion == "right" else 1 - t
            return replace(item, x=near + along * (far - near))
        case "down" | "up":
            along = t if motion == "down" else 1 - t
            return replace(item, y=near + along * (far - near))
        case "bounce":
            return replace(item, y=far - abs(math.sin(2 * math.pi * t)) * (far - near) * 0.7)
        case "grow" | "shrink":
            along = t if motion == "grow" else 1 - t
            return replace(item, diameter=item.diameter * (0.4 + 0.6 * along))
        case "spin":
            return replace(item, rotation=item.rotation + t * math.radians(250))
        case _:
            return item
