"""Decodes images that clients send, off the event loop, and resizes them to the encoder's input size at once."""

import asyncio
import base64
import binascii
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from PIL import Image

from cots.data.image_decoding import UnusableImage, decode_image
from cots.data.resizing import resize_squash
from cots.decode_threads import num_untrusted_threads
from cots.service.errors import RequestRefused
from cots.service.loaded_version import LoadedVersion

Decoded = TypeVar("Decoded")


class ImageReader:
    """Decodes in as many threads as full-size images fit in memory, one per core at most.

    Args:
        max_pixels: images with more pixels are refused without decoding; the version's own limit applies as well.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(num_untrusted_threads(max_pixels), thread_name_prefix="cots-decoding")

    async def __call__(self, version: LoadedVersion, data: bytes | str) -> Image.Image:
        """Decode an image and resize it to the input size of a version's image encoder, as the encoder itself would.

        Args:
            version: that will answer.
            data: an encoded image, or base64 of one.

        Raises:
            RequestRefused: the bytes are not an image, or the image is too large or too small.
        """
        return await self.run(partial(self._read, version, data))

    async def run(self, decode: Callable[[], Decoded]) -> Decoded:
        """Call a function that decodes images in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, decode)

    def close(self) -> None:
        """Shut the threads down; images that wait are not decoded."""
        self._threads.shutdown(cancel_futures=True)

    def _read(self, version: LoadedVersion, data: bytes | str) -> Image.Image:
        content = _decode_base64(data) if isinstance(data, str) else data
        try:
            image = decode_image(
                content, max_pixels=min(self._max_pixels, version.max_pixels), min_side=version.min_side
            )
        except UnusableImage as error:
            raise RequestRefused(422, f"the image cannot be used: {error}") from None
        return Image.fromarray(resize_squash(image, version.search.model.config["image"]["size"]))


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestRefused(422, "the image is not base64") from None
