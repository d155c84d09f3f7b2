"""Clips as a few frames: one from the middle of each of equally long parts."""

import io
from collections.abc import Iterator

import av
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from cots.data.frame_sampling import segment_centers
from cots.data.image_decoding import UnusableImage, check_size


def decode_video(data: bytes, *, frames: int, max_pixels: int, min_side: int) -> Iterator[Image.Image]:
    """At most that many frames of a clip, RGB, in order of time; all of them where it has no more.

    They come one by one, so that a caller who stores small copies holds one large frame at a time.

    Args:
        data: an encoded file, of any format that FFmpeg reads.
        frames: how many are wanted, of equally long parts of the clip.
        max_pixels: of a frame; larger ones are refused before they are decoded.
        min_side: least width and height, pixels.

    Raises:
        UnusablePicture: not a clip, damaged, cut short, too large or too small.
    """
    if not data:
        raise UnusableImage("empty file", "0 bytes")
    try:
        number = _count_frames(data, max_pixels=max_pixels, min_side=min_side)
        yield from _frames_at(data, segment_centers(number, frames))
    except (av.FFmpegError, ValueError) as error:
        raise UnusableImage("not a clip", f"{type(error).__name__}: {error}") from error


def _count_frames(data: bytes, *, max_pixels: int, min_side: int) -> int:
    """How many frames are stored, found without decoding them: containers often misstate it."""
    with av.open(io.BytesIO(data), "r") as container:
        stream = _video_stream(container.streams.video)
        context = stream.codec_context
        check_size(context.width, context.height, max_pixels=max_pixels, min_side=min_side)
        number = len([packet for packet in container.demux(stream) if packet.size])
    if number == 0:
        raise UnusableImage("not a clip", "no frame in it")
    return number


def _frames_at(data: bytes, wanted: list[int]) -> Iterator[Image.Image]:
    found = 0
    reformatter = VideoReformatter()  # one for all frames: each would set up its own otherwise, at 1 ms
    with av.open(io.BytesIO(data), "r") as container:
        for index, frame in enumerate(container.decode(_video_stream(container.streams.video))):
            if index == wanted[found]:
                pixels = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                yield Image.fromarray(pixels).rotate(frame.rotation, expand=True)
                found += 1
            if found == len(wanted):
                return
    raise UnusableImage("cut short", f"{found} of {len(wanted)} frames can be decoded")


def _video_stream(streams: tuple[VideoStream, ...]) -> VideoStream:
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise UnusableImage("not a clip", "no video stream in it that can be decoded")
    return known[0]
