"""The one decoder of untrusted videos: a few frames, each from the center of one of several equally long segments."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from cots.data.frame_sampling import segment_centers
from cots.data.image_decoding import UnusableImage, check_scans, check_size

# FFmpeg knows hundreds of containers and decoders. Some containers are playlists, which name other files, or describe
# streams, for which a socket is opened. No protocol is allowed, so nothing is read but the bytes that are given.
CONTAINERS = "mov,matroska,avi"  # MP4 and MOV; MKV and WebM; AVI
DECODERS = "h264,hevc,libdav1d,av1,vp8,vp9,mpeg4,msmpeg4v2,msmpeg4,h263,mpeg1video,mpeg2video,mjpeg"
WHITELISTS = {"format_whitelist": CONTAINERS, "codec_whitelist": DECODERS, "protocol_whitelist": ""}
T = TypeVar("T")


def decode_video(
    data: bytes,
    keep: Callable[[Image.Image], T],
    *,
    max_frames: int,
    max_pixels: int,
    min_side: int,
    max_seconds: float,
) -> list[T]:
    """What is kept of at most `max_frames` frames of a video, in order of time; of all frames if it has no more.

    Args:
        data: an encoded file: MP4, MOV, MKV, WebM or AVI.
        keep: called with each wanted frame, upright and RGB. If it returns a small copy, one large frame is in memory.
        max_frames: frames wanted, each from the center of a segment of the frames that a player shows.
        max_pixels: of every frame; larger ones are refused.
        min_side: minimum width and height, pixels.
        max_seconds: of this thread's processor time, for the whole video.

    Raises:
        UnusableImage: not a video, damaged, cut short, too large, too small, or too slow to decode.
    """
    if not data:
        raise UnusableImage("empty file", "0 bytes")
    video = _Video(data, max_pixels, min_side, max_seconds, start=time.thread_time())
    try:
        num_packets = video.count_packets()
        kept, num_frames = video.keep_frames(segment_centers(num_packets, max_frames), keep)
        if len(kept) < min(num_packets, max_frames):  # some packets hold frames that are never shown
            kept, _ = video.keep_frames(segment_centers(num_frames, max_frames), keep)
    except (av.FFmpegError, ValueError) as error:
        raise UnusableImage("not a clip", f"{type(error).__name__}: {error}") from error
    return kept


@dataclass(frozen=True, slots=True)
class _Video:
    """An encoded video with the limits of its decoding, as in `decode_video`, and the thread's time at its start."""

    data: bytes
    max_pixels: int
    min_side: int
    max_seconds: float
    start: float

    def count_packets(self) -> int:
        """Count the packets that an edit list does not hide, because containers often misstate their number."""
        with self._open() as (container, stream):
            num_packets = sum(packet.size > 0 and not packet.is_discard for packet in self._demux(container, stream))
        if num_packets == 0:
            raise UnusableImage("not a clip", "it has no frames")
        return num_packets

    def keep_frames(self, indices: list[int], keep: Callable[[Image.Image], T]) -> tuple[list[T], int]:
        """What is kept of the frames with these indices, and the number of frames up to the last of them.

        Frames of no index are not checked: the decoder refuses larger ones by itself.
        """
        kept: list[T] = []
        num_frames = 0
        reformatter = VideoReformatter()  # shared, because a new one for each frame takes 1 ms
        for frame in self._frames():
            if num_frames == indices[len(kept)]:
                check_size(frame.width, frame.height, max_pixels=self.max_pixels, min_side=self.min_side)
                kept.append(keep(_to_image(frame, reformatter)))
            num_frames += 1
            if len(kept) == len(indices):
                break
        if not kept:
            raise UnusableImage("not a clip", "none of its frames can be decoded")
        return kept, num_frames

    def _frames(self) -> Iterator[VideoFrame]:
        with self._open() as (container, stream):
            for packet in self._demux(container, stream):
                if stream.codec_context.name == "mjpeg":
                    check_scans(bytes(packet))
                try:
                    yield from stream.decode(packet)
                except av.InvalidDataError as error:
                    if packet.is_corrupt:
                        raise UnusableImage("cut short", str(error)) from error
                    raise

    def _demux(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        for packet in container.demux(stream):
            if time.thread_time() - self.start > self.max_seconds:
                raise UnusableImage("too slow", f"decoding takes more than {self.max_seconds:g} s")
            yield packet

    @contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Open the container and its first video stream, of which one thread decodes one frame after another."""
        # FFmpeg's own limit counts the padding of rows as well
        options = WHITELISTS | {"max_pixels": str(2 * self.max_pixels)}
        try:
            container = av.open(io.BytesIO(self.data), "r", options=options, metadata_errors="replace")
        except av.FFmpegError as error:
            raise UnusableImage(
                "not a clip", f"it cannot be read as MP4, MOV, MKV, WebM or AVI: {error.strerror}"
            ) from error
        with container:
            stream = _video_stream(container.streams.video)
            context = stream.codec_context
            check_size(context.width, context.height, max_pixels=self.max_pixels, min_side=self.min_side)
            context.options, context.thread_count = options, 1
            yield container, stream


def _video_stream(streams: tuple[VideoStream, ...]) -> VideoStream:
    allowed = DECODERS.split(",")
    for stream in streams:
        if stream.codec_context is not None and stream.codec_context.name in allowed:
            return stream
    raise UnusableImage("not a clip", "it has no video stream that can be decoded")


def _to_image(frame: VideoFrame, reformatter: VideoReformatter) -> Image.Image:
    pixels = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return Image.fromarray(pixels).rotate(90 * round(frame.rotation / 90), expand=True)
