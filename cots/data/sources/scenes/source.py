"""Embedded data: drawn scenes with captions, made from a grammar and a seed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cots.data.images import encode_jpeg
from cots.data.samples import SPLITS, Sample, Split
from cots.data.sources.scenes.captions import caption
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
) -> Iterator[Sample]:
    """Draw pictures and clips of all splits; the same arguments give the same bytes.

    Args:
        path: the grammar.
        seed: of all that is random.
        size: side of the pictures, pixels.
        images: how many each split has.
        videos: how many each split has.
        video_frames: of each video.
        captions: per picture or clip.
        caption_noise: fraction of the training captions that describe another picture of the split.

    Raises:
        BadInput: the grammar cannot be used, or there are too few pictures to take wrong captions from.
    """
    grammar = _drawable(Grammar.load(path), path)
    for split in SPLITS:
        share = caption_noise if split == "train" else 0.0
        for media in MEDIA:
            key = [seed, SPLITS.index(split), MEDIA.index(media)]
            total = (images if media == "image" else videos)[split]
            album = [sample_scene(grammar, _rng(key, 0, i), split, media) for i in range(total)]
            for number, scene in enumerate(album):
                texts, wrong = _captions(_rng(key, 1, number), grammar, scene, album, number=captions, wrong=share)
                yield Sample(
                    id=f"{split}-{media}-{number:05d}",
                    split=split,
                    media=media,
                    captions=texts,
                    is_mismatched=wrong,
                    content=_drawn(_rng(key, 2, number), grammar, scene, size=size, frames=video_frames, media=media),
                    origin=f"drawn: {in_full(scene)}",
                )


def sample_scene(grammar: Grammar, rng: np.random.Generator, split: Split, media: Media) -> Scene:
    """A scene for that split: only test holds pairs of shape and colour that are never seen in training."""
    unseen = split == "test" and rng.random() < grammar.unseen.share
    return (sample_image_scene if media == "image" else sample_video_scene)(rng, grammar, unseen=unseen)


def in_full(scene: Scene) -> str:
    """All that the scene holds, without leaving out a detail."""
    things = [f"{thing.size} {thing.colour} {thing.texture} {thing.shape}" for thing in scene.objects]
    moving = f", the first: {scene.motion}" if scene.motion else ""
    return f"{', '.join(things)} on {scene.background}{moving}"


def _rng(key: Sequence[int], purpose: int, number: int) -> np.random.Generator:
    """Randomness of one picture for one purpose, so that other pictures and purposes do not shift it."""
    return np.random.default_rng([*key, purpose, number])


def _captions(
    rng: np.random.Generator, grammar: Grammar, scene: Scene, album: Sequence[Scene], *, number: int, wrong: float
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    flags = tuple(bool(draw < wrong) for draw in rng.random(number))
    described = [_stranger(rng, scene, album) if flag else scene for flag in flags]
    return tuple(caption(rng, grammar, other) for other in described), flags


def _stranger(rng: np.random.Generator, scene: Scene, album: Sequence[Scene]) -> Scene:
    """Another scene that shares no shape, no colour and no motion: whatever is said of it is wrong here."""
    start = int(rng.integers(len(album)))
    for step in range(len(album)):
        other = album[(start + step) % len(album)]
        if not _traits(scene) & _traits(other):
            return other
    raise BadInput(
        f"{len(album)} drawn scenes are too few to take wrong captions from: draw more, or source.caption_noise: 0"
    )


def _traits(scene: Scene) -> set[str]:
    traits = {trait for thing in scene.objects for trait in (thing.shape, thing.colour)}
    return traits if scene.motion is None else traits | {f"motion {scene.motion}"}


def _drawn(
    rng: np.random.Generator, grammar: Grammar, scene: Scene, *, size: int, frames: int, media: Media
) -> bytes | tuple[bytes, ...]:
    background = grammar.backgrounds[scene.background]
    grain = rng.normal(0, grammar.look.grain, (size, size))
    if media == "image":
        return encode_jpeg(draw(scene, background, grain=grain))
    return tuple(encode_jpeg(draw(moment, background, grain=grain)) for moment in frames_of(scene, frames))


def _drawable(grammar: Grammar, path: Path) -> Grammar:
    """Refuse words for what the drawing does not know."""
    for named, known in (
        (grammar.shapes, {*OUTLINES}),
        (grammar.textures, {"plain", *PATTERNS}),
        (grammar.motions, {*MOTIONS}),
    ):
        if unknown := sorted(set(named) - known):
            raise BadInput(f"{path}: cannot draw {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return grammar
