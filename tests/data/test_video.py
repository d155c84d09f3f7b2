import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cots.data.image_decoding import UnusableImage
from cots.data.ingest.video import decode_video

Encoded = Callable[..., bytes]


def levels(data: bytes, frames: int) -> list[float]:
    clip = decode_video(data, frames=frames, max_pixels=10_000, min_side=16)
    return [float(np.asarray(frame).mean()) for frame in clip]


def test_a_frame_is_taken_from_the_middle_of_each_of_equal_parts(clip: Encoded) -> None:
    assert levels(clip(12), 3) == pytest.approx([20, 60, 100], abs=4)
    assert levels(clip(12), 1) == pytest.approx([60], abs=4)


def test_a_clip_with_fewer_frames_gives_all_of_them(clip: Encoded) -> None:
    assert levels(clip(4), 6) == pytest.approx([0, 10, 20, 30], abs=4)


def test_what_is_no_clip_is_told_with_its_reason(clip: Encoded, picture: Encoded) -> None:
    whole = clip(200, width=256, height=256)
    cases = {
        "empty file": b"",
        "not a clip": b"words, not frames" * 20,
        "too many pixels": whole,
        "too small": clip(3, width=64, height=14),
    }
    for reason, data in cases.items():
        with pytest.raises(UnusableImage) as raised:
            levels(data, 3)
        assert raised.value.reason == reason, raised.value


def test_a_clip_cut_short_is_refused(clip: Encoded) -> None:
    whole = clip(60)
    for share in (0.2, 0.5, 0.8):
        with pytest.raises(UnusableImage) as raised:
            levels(whole[: int(len(whole) * share)], 60)
        assert raised.value.reason in {"not a clip", "cut short"}


def test_sound_without_pictures_is_no_clip() -> None:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UnusableImage, match="no video stream"):
        levels(file.getvalue(), 3)


@pytest.mark.data
def test_real_clips_give_at_most_the_frames_asked_for(data_packs: Path) -> None:
    for path in sorted((data_packs / "msrvtt/videos").glob("*.mp4"))[:20]:
        clip = list(decode_video(path.read_bytes(), frames=4, max_pixels=50_000, min_side=16))
        assert 2 <= len(clip) <= 4
        assert {frame.size for frame in clip} == {(160, 120)}
