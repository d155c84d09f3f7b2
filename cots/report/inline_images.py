"""Images within the page: small copies as data URIs; a video is a strip of its frames."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image

MAX_FRAMES = 4  # shown of a video
GAP = 2  # pixels between frames
QUALITY = 82  # WebP


@dataclass(frozen=True, slots=True)
class InlineImage:
    """An image of the page.

    Attributes:
        uri: the data URI.
        alt: the alternative text.
        width: pixels.
        height: pixels.
    """

    uri: str
    alt: str
    width: int
    height: int

    @classmethod
    def of_frames(cls, frames: Sequence[Image.Image], alt: str, *, side: int) -> Self:
        """A copy with `side` pixels along the longer side; for a video, evenly spaced frames side by side."""
        if len(frames) > MAX_FRAMES:
            frames = [frames[number * len(frames) // MAX_FRAMES] for number in range(MAX_FRAMES)]
        strip = _join([_resize(frame, side) for frame in frames])
        buffer = io.BytesIO()
        strip.save(buffer, "WEBP", quality=QUALITY)
        return cls(_data_uri("webp", buffer.getvalue()), alt, *strip.size)

    @classmethod
    def of_png(cls, path: Path, alt: str) -> Self:
        """An unchanged PNG file."""
        with Image.open(path) as image:
            size = image.size
        return cls(_data_uri("png", path.read_bytes()), alt, *size)


def _resize(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    width, height = (max(1, round(scale * length)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _join(frames: Sequence[Image.Image]) -> Image.Image:
    width = sum(frame.width for frame in frames) + GAP * (len(frames) - 1)
    strip = Image.new("RGB", (width, max(frame.height for frame in frames)), "white")
    left = 0
    for frame in frames:
        strip.paste(frame, (left, 0))
        left += frame.width + GAP
    return strip


def _data_uri(image_format: str, data: bytes) -> str:
    return f"data:image/{image_format};base64,{base64.b64encode(data).decode()}"
