import io
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cots.data.samples import Sample
from cots.data.sources.scenes.captions import caption
from cots.data.sources.scenes.drawing import OUTLINES, draw
from cots.data.sources.scenes.grammar import Grammar
from cots.data.sources.scenes.layout import (
    MOTIONS,
    Scene,
    SceneObject,
    frames_of,
    sample_image_scene,
    sample_video_scene,
)
from cots.data.sources.scenes.source import draw_scenes
from cots.errors import BadInput

GRAMMAR_FILE = Path(__file__).parents[3] / "cots/data/scenes.yaml"


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return Grammar.load(GRAMMAR_FILE)


def drawn(path: Path = GRAMMAR_FILE, *, pictures: int = 30, wrong: float = 0.1, seed: int = 0) -> list[Sample]:
    return list(
        draw_scenes(
            path,
            seed=seed,
            size=32,
            images={"train": pictures, "val": 5, "test": pictures},
            videos={"train": 4, "val": 1, "test": 2},
            video_frames=3,
            captions=5,
            caption_noise=wrong,
        )
    )


def scenes_of(grammar: Grammar, number: int) -> list[Scene]:
    makers = (sample_image_scene, sample_video_scene)
    return [make(np.random.default_rng(i), grammar, unseen=i % 3 == 0) for i in range(number) for make in makers]


def described(scene: Scene, grammar: Grammar, text: str) -> str:
    """What is left of a caption without its true statements: a slow reading, written apart from the writer's code."""
    for ground in grammar.backgrounds[scene.background].words:
        text = re.sub(rf"( on|,) {ground}( behind)?$", "", text)
    if scene.motion:
        for phrase in sorted(grammar.motions[scene.motion], key=len, reverse=True):
            text = text.replace(f" {phrase}", " ~", 1)
    found: list[list[SceneObject]] = []

    def strike(match: re.Match[str]) -> str:
        fits = [thing for thing in scene.objects if is_said_of(thing, match[0].split(" ", 1)[1], grammar)]
        found.append(fits)
        return f"<{len(found)}>" if fits else match[0]

    names = [word for named in grammar.shapes.values() for word in named.words] + grammar.sentences.nameless
    text = re.sub(
        rf"an? (?:(?!(?:picture|an?)\b)[\w-]+ )*?(?:{'|'.join(sorted(names, key=len, reverse=True))})\b", strike, text
    )
    for name, words in grammar.relations.items():
        for word in sorted(words, key=len, reverse=True):
            if f"<1> {word} <2>" in text and any(stands(name, a, b) for a in found[0] for b in found[1] if a != b):
                text = text.replace(f"<1> {word} <2>", "<1> <2>")
    return " ".join(re.sub(r"<\d>|~|,", " ", text).split())


def is_said_of(thing: SceneObject, words: str, grammar: Grammar) -> bool:
    said = f" {words} "
    for named in (
        grammar.sizes[thing.size].words,
        grammar.colours[thing.colour].words,
        grammar.textures[thing.texture].words,
        grammar.shapes[thing.shape].words + grammar.sentences.nameless,
    ):
        for word in sorted(named, key=len, reverse=True):
            said = said.replace(f" {word} ", " ")
    return not said.strip()


def stands(relation: str, a: SceneObject, b: SceneObject) -> bool:
    dx, dy = b.x - a.x, b.y - a.y
    along = {"left": dx, "right": -dx, "above": dy, "below": -dy}[relation]
    return along > 0 and along == max(abs(dx), abs(dy))


def test_the_grammar_is_as_rich_as_promised(grammar: Grammar) -> None:
    assert len(grammar.shapes) >= 12
    assert len(grammar.colours) >= 10
    assert len(grammar.textures) >= 4
    assert len(grammar.sizes) >= 3
    assert len(grammar.backgrounds) >= 5
    assert set(grammar.look.objects) == {1, 2, 3}
    assert set(grammar.shapes) == set(OUTLINES)


def test_captions_say_nothing_that_is_not_so(grammar: Grammar) -> None:
    filler = set(
        re.findall(r"\w+", "there is a picture of i see it shows and with also while stays still does not move")
    )
    for number, scene in enumerate(scenes_of(grammar, 150)):
        for text in [caption(np.random.default_rng([number, i]), grammar, scene) for i in range(5)]:
            left = described(scene, grammar, text)
            assert set(left.split()) <= filler, f"{text!r} of {scene}: {left!r}"


def test_the_reading_of_captions_finds_what_is_not_so(grammar: Grammar) -> None:
    scene = Scene(background="sky", objects=(thing(shape="star", x=0.2), thing(shape="ring", x=0.8)), motion=None)
    assert described(scene, grammar, "a red star left of a red ring on the sky") == ""
    for lie in ("a red star right of a red ring", "a blue star", "a red star on sand", "a large red star", "a house"):
        assert described(scene, grammar, lie) != ""


def thing(**changed: object) -> SceneObject:
    about: dict[str, object] = {"shape": "square", "colour": "red", "texture": "plain", "size": "small"}
    place = {"x": 0.5, "y": 0.5, "across": 0.25, "turn": 0.0, "rgb": (222, 36, 40)}
    return SceneObject(**(about | place | changed))  # type: ignore[arg-type]


def test_things_keep_apart_and_inside_at_every_moment(grammar: Grammar) -> None:
    for scene in scenes_of(grammar, 60):
        for moment in frames_of(scene, 12 if scene.motion else 1):
            for i, a in enumerate(moment.objects):
                assert a.across / 2 <= a.x <= 1 - a.across / 2
                assert a.across / 2 <= a.y <= 1 - a.across / 2
                assert all(np.hypot(a.x - b.x, a.y - b.y) >= (a.across + b.across) / 2 for b in moment.objects[:i])


@pytest.mark.parametrize("shape", sorted(set(OUTLINES) - {"ring", "crescent"}))
def test_a_plain_thing_has_its_colour_in_the_middle_and_none_outside_its_circle(grammar: Grammar, shape: str) -> None:
    scene = Scene(background="sky", objects=(thing(shape=shape, x=0.3, y=0.6, across=0.4),), motion=None)
    pixels = np.asarray(draw(scene, grammar.backgrounds["sky"], grain=np.zeros((64, 64)))).astype(int)
    assert np.abs(pixels[38, 19] - (222, 36, 40)).max() <= 1
    red = pixels[:, :, 0] - pixels[:, :, 2] > 40
    rows, columns = np.nonzero(red)
    assert np.hypot(columns + 0.5 - 19.2, rows + 0.5 - 38.4).max() <= 0.2 * 64 + 1


def test_no_two_shapes_look_the_same() -> None:
    grids = []
    for shape in OUTLINES:
        ground = Grammar.load(GRAMMAR_FILE).backgrounds["sky"]
        scene = Scene(background="sky", objects=(thing(shape=shape, across=0.5),), motion=None)
        grids.append(np.asarray(draw(scene, ground, grain=np.zeros((64, 64))))[:, :, 1] < 100)
    for i, a in enumerate(grids):
        assert all((a ^ b).sum() > 0.1 * (a | b).sum() for b in grids[:i])


@pytest.mark.parametrize("motion", MOTIONS)
def test_clips_move_as_they_are_said_to(motion: str) -> None:
    first, *_, last = frames_of(Scene(background="sky", objects=(thing(), thing(x=0.9)), motion=motion), 6)
    a, b = first.objects[0], last.objects[0]
    grown = {
        "right": b.x - a.x,
        "left": a.x - b.x,
        "down": b.y - a.y,
        "up": a.y - b.y,
        "grow": b.across - a.across,
        "shrink": a.across - b.across,
        "spin": b.turn - a.turn,
        "bounce": 1.0,
    }
    assert grown[motion] > 0.1
    assert first.objects[1] == last.objects[1]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    assert drawn() == drawn()
    assert drawn()[0].content != drawn(seed=1)[0].content


def test_more_pictures_leave_the_first_ones_as_they_are() -> None:
    few, many = drawn(pictures=5, wrong=0.0), drawn(pictures=9, wrong=0.0)
    assert few[:5] == many[:5]


@pytest.mark.slow
def test_pairs_that_are_never_drawn_for_train_and_val_are_drawn_for_test(grammar: Grammar) -> None:
    shown: dict[str, set[tuple[str, str]]] = {"train": set(), "val": set(), "test": set()}
    for sample in drawn(pictures=200):
        things = sample.origin.removeprefix("drawn: ").split(" on ")[0].split(", ")
        shown[sample.split] |= {(shape, colour) for _, colour, _, shape in (thing.split() for thing in things)}
    unseen = set(grammar.unseen_pairs())
    assert not unseen & (shown["train"] | shown["val"])
    assert len(unseen & shown["test"]) > len(unseen) / 2


@pytest.mark.slow
def test_wrong_captions_are_flagged_and_only_in_train_and_about_as_many_as_asked(grammar: Grammar) -> None:
    samples = drawn(pictures=300, wrong=0.2)
    flags = [flag for sample in samples if sample.split == "train" for flag in sample.is_mismatched]
    assert 0.15 < np.mean(flags) < 0.25
    assert not any(flag for sample in samples if sample.split != "train" for flag in sample.is_mismatched)


def test_a_wrong_caption_names_no_shape_and_no_colour_of_the_picture(grammar: Grammar) -> None:
    checked = 0
    for sample in drawn(pictures=100, wrong=0.5):
        things = sample.origin.removeprefix("drawn: ").split(" on ")[0].split(", ")
        for _, colour, _, shape in (thing.split() for thing in things):
            words = grammar.colours[colour].words + grammar.shapes[shape].words
            for text, wrong in zip(sample.captions, sample.is_mismatched, strict=True):
                if wrong:
                    body = re.sub(r"(a light blue background)|(a pale background)", "", text)
                    assert not re.search(rf"\b({'|'.join(words)})\b", body), f"{sample.origin}: {text}"
                    checked += 1
    assert checked > 50


def test_pictures_and_clips_have_the_size_and_frames_asked_for() -> None:
    for sample in drawn(pictures=3):
        frames = sample.content if isinstance(sample.content, tuple) else (sample.content,)
        assert len(frames) == (3 if sample.media == "video" else 1)
        for frame in frames:
            assert isinstance(frame, bytes)
            with Image.open(io.BytesIO(frame)) as picture:
                assert (picture.size, picture.mode, picture.format) == ((32, 32), "RGB", "JPEG")


def test_a_single_picture_cannot_take_its_wrong_captions_from_another() -> None:
    with pytest.raises(BadInput, match="too few"):
        drawn(pictures=1, wrong=1.0)


def changed_grammar(path: Path, part: str, name: str, value: object) -> Path:
    content = yaml.safe_load(GRAMMAR_FILE.read_text())
    content[part][name] = value
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_shape_that_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    path = changed_grammar(tmp_path / "scenes.yaml", "shapes", "dodecahedron", {"words": ["dodecahedron"]})
    with pytest.raises(BadInput, match="cannot draw dodecahedron"):
        drawn(path)


def test_mistakes_in_the_grammar_are_told_together(tmp_path: Path) -> None:
    path = changed_grammar(tmp_path / "scenes.yaml", "mention", "colour", 7)
    changed = yaml.safe_load(path.read_text()) | {"smells": {}}
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(BadInput, match=r"2 mistake\(s\): .*mention.colour.*smells"):
        drawn(path)


def test_a_missing_grammar_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read the scenes' grammar"):
        drawn(tmp_path / "none.yaml")
