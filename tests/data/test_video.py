import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cots.data.image_decoding import UnusableImage
from cots.data.ingest.video import decode_video

Encoded = Callable[..., bytes]


def grey_levels(data: bytes, max_frames: int) -> list[float]:
    frames = decode_video(data, max_frames=max_frames, max_pixels=10_000, min_side=16)
    return [float(np.asarray(frame).mean()) for frame in frames]


def test_the_center_frame_of_each_of_equal_segments_is_decoded(make_video: Encoded) -> None:
    assert grey_levels(make_video(12), 3) == pytest.approx([20, 60, 100], abs=4)
    assert grey_levels(make_video(12), 1) == pytest.approx([60], abs=4)


def test_a_video_with_fewer_frames_gives_all_of_them(make_video: Encoded) -> None:
    assert grey_levels(make_video(4), 6) == pytest.approx([0, 10, 20, 30], abs=4)


def test_an_unusable_video_is_rejected_with_its_reason(make_video: Encoded, make_image: Encoded) -> None:
    whole = make_video(200, width=256, height=256)
    cases = {
        "empty file": b"",
        "not a clip": b"words, not frames" * 20,
        "too many pixels": whole,
        "too small": make_video(3, width=64, height=14),
    }
    for reason, data in cases.items():
        with pytest.raises(UnusableImage) as raised:
            grey_levels(data, 3)
        assert raised.value.reason == reason, raised.value


def test_a_video_that_is_cut_short_is_rejected(make_video: Encoded) -> None:
    whole = make_video(60)
    for fraction in (0.2, 0.5, 0.8):
        with pytest.raises(UnusableImage) as raised:
            grey_levels(whole[: int(len(whole) * fraction)], 60)
        assert raised.value.reason in {"not a clip", "cut short"}


def test_sound_without_images_is_not_a_video() -> None:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UnusableImage, match="no video stream"):
        grey_levels(file.getvalue(), 3)


@pytest.mark.data
def test_real_videos_give_at_most_the_requested_frames(data_packs: Path) -> None:
    for path in sorted((data_packs / "msrvtt/videos").glob("*.mp4"))[:20]:
        frames = list(decode_video(path.read_bytes(), max_frames=4, max_pixels=50_000, min_side=16))
        assert 2 <= len(frames) <= 4
        assert {frame.size for frame in frames} == {(160, 120)}
