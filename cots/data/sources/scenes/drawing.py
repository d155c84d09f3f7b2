"""Draws scenes: outlines, patterns and backgrounds, anti-aliased by supersampling."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from cots.data.sources.scenes.grammar import Background
from cots.data.sources.scenes.layout import Scene, SceneObject

SUPERSAMPLING = 4  # subpixels along a pixel's side
TILE_SIDE = 256  # subpixels along the side of a pattern's tile, the square around the unit circle
Outline = NDArray[np.float64]  # (N, 2): x to the right, y down, within the unit circle


def _arc(center: tuple[float, float], radius: float, start: float, end: float) -> Outline:
    angles = np.radians(np.linspace(start, end, 33))
    return np.stack([center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles)], axis=1)


def _spikes(radii: tuple[float, ...], corners: int) -> Outline:
    angles = np.radians(np.arange(corners) * 360 / corners - 90)
    radius = np.resize(radii, corners)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _heart() -> Outline:
    t = np.linspace(0, 2 * np.pi, 49)
    x, y = 16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 17, (y - 2.5) / 17], axis=1)


def _points(*points: tuple[float, float]) -> Outline:
    return np.array(points)


OUTLINES: dict[str, Outline] = {
    "circle": _arc((0, 0), 0.92, 0, 360),
    "square": _spikes((1,), 4) @ np.array([[1, 1], [-1, 1]]) / math.sqrt(2),
    "triangle": _spikes((1,), 3),
    "diamond": _spikes((1, 0.62), 4),
    "star": _spikes((1, 0.42), 10),
    "heart": _heart(),
    "cross": _points((0.95, 0.3), (0.3, 0.3), (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3),
                     (-0.95, -0.3), (-0.3, -0.3), (-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3)),
    "ring": _arc((0, 0), 0.95, 0, 360),
    "crescent": np.concatenate([_arc((0, 0), 0.95, 50, 310), _arc((0.42, 0), 0.75, 256, 104)]),
    "arrow": _points((0.98, 0), (0.2, -0.75), (0.2, -0.3), (-0.95, -0.3), (-0.95, 0.3), (0.2, 0.3), (0.2, 0.75)),
    "bolt": _points((0.3, -0.95), (-0.6, 0.15), (-0.08, 0.15), (-0.3, 0.95), (0.6, -0.25), (0.08, -0.25)),
    "house": _points((0, -0.98), (0.95, -0.15), (0.68, -0.15), (0.68, 0.72),
                     (-0.68, 0.72), (-0.68, -0.15), (-0.95, -0.15)),
    "tree": _points((0, -1), (0.5, -0.35), (0.25, -0.35), (0.75, 0.5), (0.15, 0.5), (0.15, 0.95),
                    (-0.15, 0.95), (-0.15, 0.5), (-0.75, 0.5), (-0.25, -0.35), (-0.5, -0.35)),
    "fish": np.concatenate([_arc((-0.25, 0), 0.7, 25, 335) * [1, 0.8],
                            _points((0.95, -0.55), (0.75, 0), (0.95, 0.55))]),
}  # fmt: skip
HOLES: dict[str, Outline] = {"ring": _arc((0, 0), 0.5, 0, 360)}

Pattern = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]
PATTERNS: dict[str, Pattern] = {  # where the second tone is, in coordinates of the shape
    "striped": lambda u, v: np.floor(v * 3.2 + 0.5) % 2 == 1,
    "dotted": lambda u, v: (u * 2.4 % 1 - 0.5) ** 2 + (v * 2.4 % 1 - 0.5) ** 2 < 0.1,
    "checked": lambda u, v: (np.floor(u * 2.6) + np.floor(v * 2.6)) % 2 == 1,
}


def draw(scene: Scene, background: Background, *, grain: NDArray[np.float64]) -> Image.Image:
    """Draw a scene.

    Args:
        scene: the objects and where they are.
        background: the scene's.
        grain: (S, S), noise that is added to the background, of 255; S is the image's side in pixels.
    """
    image = _draw_background(background, grain)
    for item in scene.objects:
        _draw_object(image, item)
    return image


def _draw_background(background: Background, grain: NDArray[np.float64]) -> Image.Image:
    top, bottom = (np.array(rgb, dtype=np.float64) for rgb in background.rgb)
    fade = np.linspace(0, 1, len(grain))[:, None]
    pixels = (top * (1 - fade) + bottom * fade)[:, None] + grain[:, :, None]
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _draw_object(image: Image.Image, item: SceneObject) -> None:
    """Paste the object, then the second tone of its texture, through masks of how much of each pixel they cover."""
    radius = item.diameter / 2 * image.width
    left, top = math.floor(item.x * image.width - radius), math.floor(item.y * image.height - radius)
    side = math.ceil(2 * radius) + 1
    center = ((item.x * image.width - left) * SUPERSAMPLING, (item.y * image.height - top) * SUPERSAMPLING)
    shape = _shape_mask(item, side * SUPERSAMPLING, center, radius * SUPERSAMPLING)
    image.paste(item.rgb, (left, top), shape.reduce(SUPERSAMPLING))
    if item.texture in PATTERNS:
        pattern = _pattern_mask(item, side * SUPERSAMPLING, center, radius * SUPERSAMPLING)
        image.paste(_second_tone(item.rgb), (left, top), ImageChops.multiply(shape, pattern).reduce(SUPERSAMPLING))


def _shape_mask(item: SceneObject, side: int, center: tuple[float, float], radius: float) -> Image.Image:
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    cos, sin = math.cos(item.rotation), math.sin(item.rotation)
    for outline, fill in ((OUTLINES[item.shape], 255), (HOLES.get(item.shape), 0)):
        if outline is not None:
            corners = center + radius * outline @ np.array([[cos, sin], [-sin, cos]])
            pen.polygon(corners.ravel().tolist(), fill=fill)
    return mask


def _pattern_mask(item: SceneObject, side: int, center: tuple[float, float], radius: float) -> Image.Image:
    """Where the texture's second tone is, rotated and scaled with the object."""
    (x, y), scale = center, TILE_SIDE / 2 / radius
    cos, sin = math.cos(item.rotation) * scale, math.sin(item.rotation) * scale
    to_tile = (cos, sin, TILE_SIDE / 2 - cos * x - sin * y, -sin, cos, TILE_SIDE / 2 + sin * x - cos * y)
    tile = _pattern_tile(item.texture)
    return tile.transform((side, side), Image.Transform.AFFINE, to_tile, Image.Resampling.NEAREST)


@cache
def _pattern_tile(texture: str) -> Image.Image:
    coordinates = (np.arange(TILE_SIDE) + 0.5) / TILE_SIDE * 2 - 1
    is_second_tone = PATTERNS[texture](coordinates[None, :], coordinates[:, None])
    return Image.fromarray(np.broadcast_to(is_second_tone, (TILE_SIDE, TILE_SIDE)).astype(np.uint8) * 255)


def _second_tone(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """A darker tone of a light colour, a lighter tone of a dark one: the pattern shows and the hue stays."""
    light = rgb[0] * 0.3 + rgb[1] * 0.59 + rgb[2] * 0.11 > 110
    red, green, blue = (round(c * 0.5 if light else c * 0.45 + 255 * 0.55) for c in rgb)
    return red, green, blue
