import io
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cots.data.samples import Sample
from cots.data.sources.scenes.captions import sample_caption, sample_short_caption
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


def draw_samples(
    path: Path = GRAMMAR_FILE, *, num_images: int = 30, caption_noise: float = 0.1, seed: int = 0
) -> list[Sample]:
    parts = draw_scenes(
        path,
        seed=seed,
        size=32,
        images={"train": num_images, "val": 5, "test": num_images},
        videos={"train": 4, "val": 1, "test": 2},
        video_frames=3,
        captions=5,
        caption_noise=caption_noise,
    )
    return [sample for part in parts for sample in part.read()]


def sample_scenes(grammar: Grammar, number: int) -> list[Scene]:
    samplers = (sample_image_scene, sample_video_scene)
    return [sample(np.random.default_rng(i), grammar, unseen=i % 3 == 0) for i in range(number) for sample in samplers]


def remove_true_statements(scene: Scene, grammar: Grammar, text: str) -> str:
    """The rest of a caption without its true statements: a slow check, independent of the code that writes captions."""
    for ground in grammar.backgrounds[scene.background].words:
        text = re.sub(rf"( on|,) {ground}( behind)?$", "", text)
    if scene.motion:
        for phrase in sorted(grammar.motions[scene.motion], key=len, reverse=True):
            text = text.replace(f" {phrase}", " ~", 1)
    mentioned: list[list[SceneObject]] = []

    def remove_object(match: re.Match[str]) -> str:
        fitting = [item for item in scene.objects if describes(match[0].split(" ", 1)[1], item, grammar)]
        mentioned.append(fitting)
        return f"<{len(mentioned)}>" if fitting else match[0]

    names = [word for named in grammar.shapes.values() for word in named.words] + grammar.sentences.nameless
    text = re.sub(
        rf"an? (?:(?!(?:picture|an?)\b)[\w-]+ )*?(?:{'|'.join(sorted(names, key=len, reverse=True))})\b",
        remove_object,
        text,
    )
    for name, words in grammar.relations.items():
        for word in sorted(words, key=len, reverse=True):
            if f"<1> {word} <2>" in text and any(
                is_related(name, a, b) for a in mentioned[0] for b in mentioned[1] if a != b
            ):
                text = text.replace(f"<1> {word} <2>", "<1> <2>")
    return " ".join(re.sub(r"<\d>|~|,", " ", text).split())


def describes(words: str, item: SceneObject, grammar: Grammar) -> bool:
    rest = f" {words} "
    for named in (
        grammar.sizes[item.size].words,
        grammar.colours[item.colour].words,
        grammar.textures[item.texture].words,
        grammar.shapes[item.shape].words + grammar.sentences.nameless,
    ):
        for word in sorted(named, key=len, reverse=True):
            rest = rest.replace(f" {word} ", " ")
    return not rest.strip()


def is_related(relation: str, a: SceneObject, b: SceneObject) -> bool:
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


def test_captions_say_nothing_untrue(grammar: Grammar) -> None:
    filler = set(
        re.findall(r"\w+", "there is a picture of i see it shows and with also while stays still does not move")
    )
    for number, scene in enumerate(sample_scenes(grammar, 150)):
        rng = np.random.default_rng(number)
        texts = [*(sample_caption(rng, grammar, scene) for _ in range(5)), sample_short_caption(rng, grammar, scene)]
        for text in texts:
            rest = remove_true_statements(scene, grammar, text)
            assert set(rest.split()) <= filler, f"{text!r} of {scene}: {rest!r}"


def test_the_check_of_captions_finds_untrue_statements(grammar: Grammar) -> None:
    scene = Scene(
        background="sky", objects=(scene_object(shape="star", x=0.2), scene_object(shape="ring", x=0.8)), motion=None
    )
    assert remove_true_statements(scene, grammar, "a red star left of a red ring on the sky") == ""
    for lie in ("a red star right of a red ring", "a blue star", "a red star on sand", "a large red star", "a house"):
        assert remove_true_statements(scene, grammar, lie) != ""


def scene_object(**changed: object) -> SceneObject:
    names: dict[str, object] = {"shape": "square", "colour": "red", "texture": "plain", "size": "small"}
    place = {"x": 0.5, "y": 0.5, "diameter": 0.25, "rotation": 0.0, "rgb": (222, 36, 40)}
    return SceneObject(**(names | place | changed))  # type: ignore[arg-type]


def test_objects_keep_apart_and_inside_at_every_moment(grammar: Grammar) -> None:
    for scene in sample_scenes(grammar, 60):
        for moment in frames_of(scene, 12 if scene.motion else 1):
            for i, a in enumerate(moment.objects):
                assert a.diameter / 2 <= a.x <= 1 - a.diameter / 2
                assert a.diameter / 2 <= a.y <= 1 - a.diameter / 2
                assert all(np.hypot(a.x - b.x, a.y - b.y) >= (a.diameter + b.diameter) / 2 for b in moment.objects[:i])


@pytest.mark.parametrize("shape", sorted(set(OUTLINES) - {"ring", "crescent"}))
def test_a_plain_object_has_its_colour_in_the_middle_and_nothing_outside_its_circle(
    grammar: Grammar, shape: str
) -> None:
    scene = Scene(background="sky", objects=(scene_object(shape=shape, x=0.3, y=0.6, diameter=0.4),), motion=None)
    pixels = np.asarray(draw(scene, grammar.backgrounds["sky"], grain=np.zeros((64, 64)))).astype(int)
    assert np.abs(pixels[38, 19] - (222, 36, 40)).max() <= 1
    red = pixels[:, :, 0] - pixels[:, :, 2] > 40
    rows, columns = np.nonzero(red)
    assert np.hypot(columns + 0.5 - 19.2, rows + 0.5 - 38.4).max() <= 0.2 * 64 + 1


def test_no_two_shapes_look_the_same() -> None:
    grids = []
    for shape in OUTLINES:
        ground = Grammar.load(GRAMMAR_FILE).backgrounds["sky"]
        scene = Scene(background="sky", objects=(scene_object(shape=shape, diameter=0.5),), motion=None)
        grids.append(np.asarray(draw(scene, ground, grain=np.zeros((64, 64))))[:, :, 1] < 100)
    for i, a in enumerate(grids):
        assert all((a ^ b).sum() > 0.1 * (a | b).sum() for b in grids[:i])


@pytest.mark.parametrize("motion", MOTIONS)
def test_objects_move_as_the_motion_says(motion: str) -> None:
    first, *_, last = frames_of(
        Scene(background="sky", objects=(scene_object(), scene_object(x=0.9)), motion=motion), 6
    )
    a, b = first.objects[0], last.objects[0]
    progress = {
        "right": b.x - a.x,
        "left": a.x - b.x,
        "down": b.y - a.y,
        "up": a.y - b.y,
        "grow": b.diameter - a.diameter,
        "shrink": a.diameter - b.diameter,
        "spin": b.rotation - a.rotation,
        "bounce": 1.0,
    }
    assert progress[motion] > 0.1
    assert first.objects[1] == last.objects[1]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    assert draw_samples() == draw_samples()
    assert draw_samples()[0].content != draw_samples(seed=1)[0].content


def test_more_images_leave_the_first_ones_as_they_are() -> None:
    few, many = draw_samples(num_images=5, caption_noise=0.0), draw_samples(num_images=9, caption_noise=0.0)
    assert few[:5] == many[:5]


@pytest.mark.slow
def test_unseen_pairs_occur_in_test_and_never_in_train_or_val(grammar: Grammar) -> None:
    shown: dict[str, set[tuple[str, str]]] = {"train": set(), "val": set(), "test": set()}
    for sample in draw_samples(num_images=200):
        items = sample.origin.removeprefix("drawn: ").split(" on ")[0].split(", ")
        shown[sample.split] |= {(shape, colour) for _, colour, _, shape in (item.split() for item in items)}
    unseen = set(grammar.unseen_pairs())
    assert not unseen & (shown["train"] | shown["val"])
    assert len(unseen & shown["test"]) > len(unseen) / 2


@pytest.mark.slow
def test_mismatched_captions_are_flagged_occur_only_in_train_and_are_about_as_many_as_requested(
    grammar: Grammar,
) -> None:
    samples = draw_samples(num_images=300, caption_noise=0.2)
    flags = [flag for sample in samples if sample.split == "train" for flag in sample.is_mismatched]
    assert 0.15 < np.mean(flags) < 0.25
    assert not any(flag for sample in samples if sample.split != "train" for flag in sample.is_mismatched)


def test_a_quarter_of_the_training_captions_is_short_and_no_other(grammar: Grammar) -> None:
    shapes = "|".join(word for shape in grammar.shapes.values() for word in shape.words)
    colours = "|".join(word for colour in grammar.colours.values() for word in colour.words)
    short = re.compile(rf"an? ({colours}) ({shapes})")
    captions: dict[bool, list[str]] = {True: [], False: []}
    for sample in draw_samples(num_images=150):
        captions[sample.split == "train"] += sample.captions
    share = {train: np.mean([bool(short.fullmatch(text)) for text in texts]) for train, texts in captions.items()}
    assert 0.2 < share[True] - share[False] < 0.3
    assert share[False] < 0.05  # a long caption may leave out everything else by chance


def test_a_mismatched_caption_names_no_shape_and_no_colour_of_the_image(grammar: Grammar) -> None:
    checked = 0
    for sample in draw_samples(num_images=100, caption_noise=0.5):
        items = sample.origin.removeprefix("drawn: ").split(" on ")[0].split(", ")
        for _, colour, _, shape in (item.split() for item in items):
            words = grammar.colours[colour].words + grammar.shapes[shape].words
            for text, wrong in zip(sample.captions, sample.is_mismatched, strict=True):
                if wrong:
                    body = re.sub(r"(a light blue background)|(a pale background)", "", text)
                    assert not re.search(rf"\b({'|'.join(words)})\b", body), f"{sample.origin}: {text}"
                    checked += 1
    assert checked > 50


def test_images_and_videos_have_the_requested_size_and_number_of_frames() -> None:
    for sample in draw_samples(num_images=3):
        frames = sample.content if isinstance(sample.content, tuple) else (sample.content,)
        assert len(frames) == (3 if sample.media == "video" else 1)
        for frame in frames:
            assert isinstance(frame, bytes)
            with Image.open(io.BytesIO(frame)) as image:
                assert (image.size, image.mode, image.format) == ((32, 32), "RGB", "JPEG")


def test_a_single_image_cannot_take_captions_of_another() -> None:
    with pytest.raises(BadInput, match="too few"):
        draw_samples(num_images=1, caption_noise=1.0)


def changed_grammar(path: Path, part: str, name: str, value: object) -> Path:
    content = yaml.safe_load(GRAMMAR_FILE.read_text())
    content[part][name] = value
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_shape_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    path = changed_grammar(tmp_path / "scenes.yaml", "shapes", "dodecahedron", {"words": ["dodecahedron"]})
    with pytest.raises(BadInput, match="cannot draw dodecahedron"):
        draw_samples(path)


def test_all_mistakes_in_the_grammar_are_reported_together(tmp_path: Path) -> None:
    path = changed_grammar(tmp_path / "scenes.yaml", "mention", "colour", 7)
    changed = yaml.safe_load(path.read_text()) | {"smells": {}}
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(BadInput, match=r"2 mistake\(s\): .*mention.colour.*smells"):
        draw_samples(path)


def test_a_missing_grammar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read the scenes' grammar"):
        draw_samples(tmp_path / "none.yaml")
