"""Pictures as data URIs."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from cots.report.pictures import GAP, STRIP, Picture


def decoded(picture: Picture) -> Image.Image:
    head, _, data = picture.uri.partition(",")
    assert head in ("data:image/webp;base64", "data:image/png;base64")
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


@pytest.mark.parametrize(("size", "shown"), [((64, 64), (50, 50)), ((200, 100), (50, 25)), ((1, 400), (1, 50))])
def test_the_longer_side_is_as_asked_and_the_shape_kept(size: tuple[int, int], shown: tuple[int, int]) -> None:
    picture = Picture.of_frames([Image.new("RGB", size, "red")], "red", side=50)
    assert (picture.width, picture.height) == decoded(picture).size == shown
    assert picture.alt == "red"


@pytest.mark.parametrize("frames", [2, 4, 5, 9])
def test_a_clip_is_a_strip_of_its_frames_in_order(frames: int) -> None:
    clip = [Image.new("RGB", (20, 20), (20 * number, 0, 0)) for number in range(frames)]
    strip = decoded(Picture.of_frames(clip, "clip", side=20)).convert("RGB")
    shown = min(frames, STRIP)
    assert strip.size == (20 * shown + GAP * (shown - 1), 20)
    reds = [
        strip.crop((22 * number + 5, 5, 22 * number + 15, 15)).resize((1, 1)).tobytes()[0] for number in range(shown)
    ]
    assert reds == sorted(set(reds))


def test_a_png_stays_as_it_is(tmp_path: Path) -> None:
    Image.effect_noise((30, 20), 50).save(tmp_path / "a.png")
    picture = Picture.of_png(tmp_path / "a.png", "noise")
    assert decoded(picture).tobytes() == Image.open(tmp_path / "a.png").tobytes()
    assert (picture.width, picture.height) == (30, 20)
