"""Decodes a few frames of a video: the center of each of several equally long segments."""

import io
from collections.abc import Iterator

import av
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from cots.data.frame_sampling import segment_centers
from cots.data.image_decoding import UnusableImage, check_size


def decode_video(data: bytes, *, max_frames: int, max_pixels: int, min_side: int) -> Iterator[Image.Image]:
    """Yield at most `max_frames` frames of a video, RGB, in order of time; all frames if it has no more.

    Frames come one at a time, so a caller who stores small copies holds one large frame in memory.

    Args:
        data: an encoded file, in any format that FFmpeg reads.
        max_frames: frames wanted, each from the center of a segment.
        max_pixels: of a frame; larger ones are refused before they are decoded.
        min_side: minimum width and height, pixels.

    Raises:
        UnusableImage: not a video, damaged, cut short, too large or too small.
    """
    if not data:
        raise UnusableImage("empty file", "0 bytes")
    try:
        num_frames = _count_frames(data, max_pixels=max_pixels, min_side=min_side)
        yield from _frames_at(data, segment_centers(num_frames, max_frames))
    except (av.FFmpegError, ValueError) as error:
        raise UnusableImage("not a clip", f"{type(error).__name__}: {error}") from error


def _count_frames(data: bytes, *, max_pixels: int, min_side: int) -> int:
    """Count the stored frames without decoding them, because containers often misstate their number."""
    with av.open(io.BytesIO(data), "r") as container:
        stream = _video_stream(container.streams.video)
        context = stream.codec_context
        check_size(context.width, context.height, max_pixels=max_pixels, min_side=min_side)
        num_frames = len([packet for packet in container.demux(stream) if packet.size])
    if num_frames == 0:
        raise UnusableImage("not a clip", "it has no frames")
    return num_frames


def _frames_at(data: bytes, indices: list[int]) -> Iterator[Image.Image]:
    num_decoded = 0
    reformatter = VideoReformatter()  # shared, because a new one for each frame takes 1 ms
    with av.open(io.BytesIO(data), "r") as container:
        for index, frame in enumerate(container.decode(_video_stream(container.streams.video))):
            if index == indices[num_decoded]:
                pixels = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                yield Image.fromarray(pixels).rotate(frame.rotation, expand=True)
                num_decoded += 1
            if num_decoded == len(indices):
                return
    raise UnusableImage("cut short", f"{num_decoded} of {len(indices)} frames can be decoded")


def _video_stream(streams: tuple[VideoStream, ...]) -> VideoStream:
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise UnusableImage("not a clip", "it has no video stream that can be decoded")
    return decodable[0]
