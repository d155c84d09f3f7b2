"""Pictures inside a page: small copies as data URIs, clips as strips of their frames."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image

STRIP = 4  # frames shown of a clip
GAP = 2  # pixels between them
QUALITY = 82  # WebP


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the page.

    Attributes:
        uri: the data URI.
        alt: what it shows, for those who do not see it.
        width: pixels; height: pixels.
    """

    uri: str
    alt: str
    width: int
    height: int

    @classmethod
    def of_frames(cls, frames: Sequence[Image.Image], alt: str, *, side: int) -> Self:
        """A small copy whose longer side has `side` pixels; of a clip, evenly spaced frames beside each other."""
        chosen = [frames[number * len(frames) // STRIP] for number in range(STRIP)] if len(frames) > STRIP else frames
        strip = _strip([_resized(frame, side) for frame in chosen])
        buffer = io.BytesIO()
        strip.save(buffer, "WEBP", quality=QUALITY)
        return cls(_uri("webp", buffer.getvalue()), alt, *strip.size)

    @classmethod
    def of_png(cls, path: Path, alt: str) -> Self:
        """A PNG file as it is."""
        with Image.open(path) as picture:
            size = picture.size
        return cls(_uri("png", path.read_bytes()), alt, *size)


def _resized(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    width, height = (max(1, round(scale * length)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _strip(frames: Sequence[Image.Image]) -> Image.Image:
    width = sum(frame.width for frame in frames) + GAP * (len(frames) - 1)
    strip = Image.new("RGB", (width, max(frame.height for frame in frames)), "white")
    left = 0
    for frame in frames:
        strip.paste(frame, (left, 0))
        left += frame.width + GAP
    return strip


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
