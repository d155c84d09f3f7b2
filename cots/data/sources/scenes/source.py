"""Reader of source `scenes`: draws scenes with captions from a grammar and a seed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from cots.data.images import encode_jpeg
from cots.data.samples import SPLITS, Sample, Split
from cots.data.sources.parts import PART_SIZE, Part
from cots.data.sources.scenes.captions import sample_caption, sample_short_caption
from cots.data.sources.scenes.drawing import OUTLINES, PATTERNS, draw
from cots.data.sources.scenes.grammar import Grammar
from cots.data.sources.scenes.layout import MOTIONS, Scene, frames_of, sample_image_scene, sample_video_scene
from cots.directions import MEDIA, Media
from cots.errors import BadInput


def draw_scenes(
    path: Path,
    *,
    seed: int,
    size: int,
    images: Mapping[Split, int],
    videos: Mapping[Split, int],
    video_frames: int,
    captions: int,
    caption_noise: float,
) -> Iterator[Part]:
    """Draw images and videos of all splits; the same arguments give the same bytes.

    Args:
        path: the grammar.
        seed: of everything random.
        size: side of the images, pixels.
        images: number of images by split.
        videos: number of videos by split.
        video_frames: frames per video.
        captions: captions per image or video.
        caption_noise: fraction of the training captions that describe another scene of the split.

    Returns:
        Parts, which draw their scenes when they are read, by the grammar as it is now.

    Raises:
        BadInput: the grammar cannot be used; or, of a part, there are too few scenes to take wrong captions from.
    """
    grammar = Grammar.load(path)
    _check_drawable(grammar, path)
    for split in SPLITS:
        noise, short = (caption_noise, grammar.mention.short) if split == "train" else (0.0, 0.0)
        for media in MEDIA:
            key = (seed, SPLITS.index(split), MEDIA.index(media))
            num_scenes = (images if media == "image" else videos)[split]
            series = _Series(grammar, key, split, media, num_scenes, captions, noise, short, size, video_frames)
            for start in range(0, num_scenes, PART_SIZE):
                numbers = range(start, min(start + PART_SIZE, num_scenes))
                name = f"{split}-{media}-{start:05d}"
                yield Part(name, partial(series.draw, numbers), partial(repr, (grammar, name)))


@dataclass(frozen=True)
class _Series:
    """The scenes of one split and kind of media."""

    grammar: Grammar
    key: tuple[int, int, int]
    split: Split
    media: Media
    num_scenes: int
    captions: int
    noise: float
    short: float
    size: int
    video_frames: int

    @cached_property
    def scenes(self) -> list[Scene]:
        return [
            sample_scene(self.grammar, _rng(self.key, 0, i), self.split, self.media) for i in range(self.num_scenes)
        ]

    def draw(self, numbers: Iterable[int]) -> Iterator[Sample]:
        for i in numbers:
            scene = self.scenes[i]
            texts, is_mismatched = _sample_captions(
                _rng(self.key, 1, i),
                self.grammar,
                scene,
                self.scenes,
                num_captions=self.captions,
                noise=self.noise,
                short=self.short,
            )
            yield Sample(
                id=f"{self.split}-{self.media}-{i:05d}",
                split=self.split,
                media=self.media,
                captions=texts,
                is_mismatched=is_mismatched,
                content=_draw_content(
                    _rng(self.key, 2, i), self.grammar, scene, size=self.size, num_frames=self.video_frames
                ),
                origin=f"drawn: {describe_scene(scene)}",
            )


def sample_scene(grammar: Grammar, rng: np.random.Generator, split: Split, media: Media) -> Scene:
    """A scene of a split: only test has pairs of shape and colour that never occur in training."""
    unseen = split == "test" and rng.random() < grammar.unseen.share
    return (sample_image_scene if media == "image" else sample_video_scene)(rng, grammar, unseen=unseen)


def describe_scene(scene: Scene) -> str:
    """Everything in the scene, in every detail."""
    objects = [f"{item.size} {item.colour} {item.texture} {item.shape}" for item in scene.objects]
    motion = f", the first: {scene.motion}" if scene.motion else ""
    return f"{', '.join(objects)} on {scene.background}{motion}"


def _rng(key: Sequence[int], purpose: int, index: int) -> np.random.Generator:
    """A generator for one purpose in one scene, so that no other scene or purpose changes its numbers."""
    return np.random.default_rng([*key, purpose, index])


def _sample_captions(
    rng: np.random.Generator,
    grammar: Grammar,
    scene: Scene,
    scenes: Sequence[Scene],
    *,
    num_captions: int,
    noise: float,
    short: float,
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Captions, a fraction of them short, and which of them describe another scene."""
    is_mismatched = tuple(bool(draw < noise) for draw in rng.random(num_captions))
    described_scenes = [_unlike_scene(rng, scene, scenes) if flag else scene for flag in is_mismatched]
    captions = [sample_caption(rng, grammar, other) for other in described_scenes]
    if short:
        is_short = rng.random(num_captions) < short
        captions = [
            sample_short_caption(rng, grammar, other) if flag else caption
            for flag, caption, other in zip(is_short, captions, described_scenes, strict=True)
        ]
    return tuple(captions), is_mismatched


def _unlike_scene(rng: np.random.Generator, scene: Scene, scenes: Sequence[Scene]) -> Scene:
    """A scene without a shape, colour or motion of this one, so that its captions are wrong for this one."""
    start = int(rng.integers(len(scenes)))
    for step in range(len(scenes)):
        other = scenes[(start + step) % len(scenes)]
        if not _traits(scene) & _traits(other):
            return other
    raise BadInput(
        f"{len(scenes)} drawn scenes are too few to take wrong captions from: draw more, or source.caption_noise: 0"
    )


def _traits(scene: Scene) -> set[str]:
    traits = {trait for item in scene.objects for trait in (item.shape, item.colour)}
    return traits if scene.motion is None else traits | {f"motion {scene.motion}"}


def _draw_content(
    rng: np.random.Generator, grammar: Grammar, scene: Scene, *, size: int, num_frames: int
) -> bytes | tuple[bytes, ...]:
    """The encoded image, or the encoded frames of a video."""
    background = grammar.backgrounds[scene.background]
    grain = rng.normal(0, grammar.look.grain, (size, size))
    if scene.motion is None:
        return encode_jpeg(draw(scene, background, grain=grain))
    return tuple(encode_jpeg(draw(moment, background, grain=grain)) for moment in frames_of(scene, num_frames))


def _check_drawable(grammar: Grammar, path: Path) -> None:
    """Refuse a grammar that names something that cannot be drawn."""
    for named, known in (
        (grammar.shapes, {*OUTLINES}),
        (grammar.textures, {"plain", *PATTERNS}),
        (grammar.motions, {*MOTIONS}),
    ):
        if unknown := sorted(set(named) - known):
            raise BadInput(f"{path}: cannot draw {', '.join(unknown)}; known are {', '.join(sorted(known))}")
