import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from cots.data.image_decoding import UnusableImage
from cots.data.ingest.video import decode_video

from .test_images import with_scans

Encoded = Callable[..., bytes]


def grey_level(frame: Image.Image) -> float:
    return float(np.asarray(frame).mean())


def grey_levels(
    data: bytes, max_frames: int, *, max_pixels: int = 10_000, min_side: int = 16, max_seconds: float = 60
) -> list[float]:
    limits = {"max_frames": max_frames, "max_pixels": max_pixels, "min_side": min_side}
    return decode_video(data, grey_level, max_seconds=max_seconds, **limits)


Packet = Any  # PyAV declares it as generic, which it is not
Change = Callable[[int, Packet], Packet]


def remuxed(data: bytes, kind: str, change: Change, **metadata: str) -> bytes:
    """The same packets, each changed, in a container of a kind."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(file, "w", format=kind) as target:
        target.metadata.update(metadata)
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.dts is not None:
                changed = change(number, packet)
                changed.stream = stream
                target.mux(changed)
    return file.getvalue()


def motion_jpeg(*frames: bytes) -> bytes:
    """An AVI of these JPEGs."""
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuvj420p"
        for number, frame in enumerate(frames):
            packet = av.Packet(frame)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 5), stream, True
            container.mux(packet)
    return file.getvalue()


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


def test_a_video_whose_last_frame_is_incomplete_is_cut_short(make_video: Encoded) -> None:
    with pytest.raises(UnusableImage) as raised:
        grey_levels(make_video(60)[:-20], 60)
    assert raised.value.reason == "cut short"


def test_frames_that_an_edit_list_hides_are_not_counted(make_video: Encoded) -> None:
    """A video that was trimmed without being encoded anew: packets before the first shown frame stay in the file."""

    def shift(_: int, packet: Packet) -> Packet:
        hidden = int(Fraction(12, 5) / packet.time_base)  # of 24 frames, 5 a second, the first 12
        packet.pts, packet.dts = packet.pts - hidden, packet.dts - hidden
        return packet

    for kind in ("mp4", "mov"):
        assert grey_levels(remuxed(make_video(24), kind, shift), 3) == pytest.approx([140, 180, 220], abs=4)


def test_frames_that_are_decoded_but_not_shown_are_not_counted() -> None:
    """VP8's alternate reference frames have packets of their own."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(24):
            pixels = np.full((48, 64, 3), 10 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())

    def hide(number: int, packet: Packet) -> Packet:
        if number < 12:
            return packet
        content = bytes(packet)
        hidden: Packet = av.Packet(bytes([content[0] & ~0x10]) + content[1:])  # the bit `show_frame`
        hidden.pts, hidden.dts, hidden.time_base = packet.pts, packet.dts, packet.time_base
        return hidden

    assert grey_levels(remuxed(file.getvalue(), "webm", hide), 3) == pytest.approx([20, 60, 100], abs=6)


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 0.0.0.0\nt=0 0\nm=video 5104 RTP/AVP 33\n",
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><BaseURL>secret.mp4</BaseURL></MPD>',
    ],
    ids=["concat", "HLS", "SDP", "DASH"],
)
def test_a_text_that_names_files_or_addresses_is_not_a_video(
    text: str, tmp_path: Path, make_video: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.mp4").write_bytes(make_video())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnusableImage, match="cannot be read as MP4, MOV, MKV, WebM or AVI") as raised:
        grey_levels(text.encode(), 3)
    assert raised.value.reason == "not a clip"


@pytest.mark.parametrize(
    ("kind", "codec"), [("mpegts", "mpeg2video"), ("flv", "flv"), ("avi", "huffyuv"), ("avi", "png")]
)
def test_containers_and_codecs_that_no_data_set_has_are_not_decoded(kind: str, codec: str) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = {"huffyuv": "yuv422p", "png": "rgb24"}.get(codec, "yuv420p")
        for _ in range(3):
            pixels = np.zeros((48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    with pytest.raises(UnusableImage) as raised:
        grey_levels(file.getvalue(), 3)
    assert raised.value.reason == "not a clip"


def test_frames_may_change_their_size_within_the_limits(make_image: Encoded) -> None:
    video = motion_jpeg(*[make_image(96, 80)] * 6, *[make_image(120, 100)] * 6, *[make_image(400, 300)] * 6)
    limits = {"max_frames": 3, "min_side": 16, "max_seconds": 60}
    sizes = decode_video(video, lambda frame: frame.size, max_pixels=400 * 300, **limits)
    assert sizes == [(96, 80), (120, 100), (400, 300)]
    with pytest.raises(UnusableImage, match="120 x 100, at most 11000") as raised:
        grey_levels(video, 3, max_pixels=11_000)
    assert raised.value.reason == "too many pixels"
    large_between = motion_jpeg(*[make_image(96, 80)] * 6, *[make_image(400, 300)] * 6, *[make_image(96, 80)] * 6)
    assert len(grey_levels(large_between, 2, max_pixels=400 * 300)) == 2
    with pytest.raises(UnusableImage):  # although the large ones are not wanted
        grey_levels(large_between, 2)


def test_frames_that_are_jpegs_have_no_scans_without_end(make_image: Encoded) -> None:
    with pytest.raises(UnusableImage) as raised:
        grey_levels(motion_jpeg(make_image(64, 64), with_scans(1000), make_image(64, 64)), 3)
    assert raised.value.reason == "too many scans"


def test_a_video_that_takes_too_long_is_given_up(make_video: Encoded) -> None:
    with pytest.raises(UnusableImage, match="takes more than 1e-09 s") as raised:
        grey_levels(make_video(), 3, max_seconds=1e-9)
    assert raised.value.reason == "too slow"


def test_a_title_that_is_not_utf8_does_not_cost_the_video(make_video: Encoded) -> None:
    data = remuxed(make_video(), "mp4", lambda _, packet: packet, title="caffe")
    assert b"caffe" in data
    assert grey_levels(data.replace(b"caffe", b"caff\xe9"), 3) == pytest.approx([20, 60, 100], abs=4)


def test_sound_without_images_is_not_a_video() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
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
        limits = {"max_frames": 4, "max_pixels": 50_000, "min_side": 16}
        sizes = decode_video(path.read_bytes(), lambda frame: frame.size, max_seconds=60, **limits)
        assert 2 <= len(sizes) <= 4
        assert set(sizes) == {(160, 120)}
