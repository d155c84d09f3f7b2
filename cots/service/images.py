"""Pictures that clients send: opened off the event loop, reduced at once to what the encoders see."""

import asyncio
import base64
import binascii
import io
import os
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, UnidentifiedImageError

from cots.data.image_decoding import UnusableImage, decode_image
from cots.data.resizing import resize_squash
from cots.service.errors import RequestRefused
from cots.service.loaded_version import LoadedVersion

# Of a stranger's bytes no other decoder is tried: Pillow would hand EPS to Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


class ImageReader:
    """Decodes in threads, at most one a core at a time: so many full pictures are in memory.

    Args:
        max_pixels: larger pictures are refused unopened, as are those over the version's own limit.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="cots-decoding")

    async def __call__(self, deployed: LoadedVersion, data: bytes | str) -> Image.Image:
        """The picture as the encoders of a version see it; they make of it what they would make of the original.

        Args:
            deployed: the version that will answer.
            data: an encoded picture, or base64 of one.

        Raises:
            Refused: it is no picture, or one that is too large or too small.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, deployed, data)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown()

    def _read(self, deployed: LoadedVersion, data: bytes | str) -> Image.Image:
        content = _decoded(data) if isinstance(data, str) else data
        _check_format(content)
        try:
            picture = decode_image(
                content, max_pixels=min(self._max_pixels, deployed.max_pixels), min_side=deployed.min_side
            )
        except UnusableImage as error:
            raise RequestRefused(422, f"the image cannot be used: {error}") from None
        return Image.fromarray(resize_squash(picture, deployed.search.model.config["image"]["size"]))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestRefused(422, "the image is not base64") from None


def _check_format(content: bytes) -> None:
    try:
        Image.open(io.BytesIO(content), formats=FORMATS).close()
    except UnidentifiedImageError:
        raise RequestRefused(422, f"the image is none of {', '.join(FORMATS)}") from None
    except Exception:  # noqa: S110  damaged in its first bytes: `decode_picture` says how
        pass
