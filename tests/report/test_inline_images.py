"""Images as data URIs."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from cots.report.inline_images import GAP, MAX_FRAMES, InlineImage


def decode(image: InlineImage) -> Image.Image:
    head, _, data = image.uri.partition(",")
    assert head in ("data:image/webp;base64", "data:image/png;base64")
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


@pytest.mark.parametrize(("size", "shown"), [((64, 64), (50, 50)), ((200, 100), (50, 25)), ((1, 400), (1, 50))])
def test_the_longer_side_has_the_given_length_and_the_aspect_ratio_is_kept(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    image = InlineImage.of_frames([Image.new("RGB", size, "red")], "red", side=50)
    assert (image.width, image.height) == decode(image).size == shown
    assert image.alt == "red"


@pytest.mark.parametrize("frames", [2, 4, 5, 9])
def test_a_video_is_a_strip_of_its_frames_in_order(frames: int) -> None:
    video = [Image.new("RGB", (20, 20), (20 * number, 0, 0)) for number in range(frames)]
    strip = decode(InlineImage.of_frames(video, "video", side=20)).convert("RGB")
    shown = min(frames, MAX_FRAMES)
    assert strip.size == (20 * shown + GAP * (shown - 1), 20)
    reds = [
        strip.crop((22 * number + 5, 5, 22 * number + 15, 15)).resize((1, 1)).tobytes()[0] for number in range(shown)
    ]
    assert reds == sorted(set(reds))


def test_a_png_is_unchanged(tmp_path: Path) -> None:
    Image.effect_noise((30, 20), 50).save(tmp_path / "a.png")
    image = InlineImage.of_png(tmp_path / "a.png", "noise")
    assert decode(image).tobytes() == Image.open(tmp_path / "a.png").tobytes()
    assert (image.width, image.height) == (30, 20)
