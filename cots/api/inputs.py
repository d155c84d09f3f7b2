"""Checks and decodes the images and texts that callers pass; what cannot be used is refused in one line."""

import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cots.data.image_decoding import UnusableImage, check_size, decode_image, to_upright_rgb
from cots.data.limits import MAX_PIXELS
from cots.data.samples import is_utf8
from cots.decode_threads import decode_in_threads
from cots.errors import BadInput
from cots.models.loading import is_uri

ImageInput = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.generic]
ImageInputs = ImageInput | Iterable[ImageInput]
CHANNELS = (1, 3, 4)  # of an array: grey, RGB, RGBA
KINDS = "a path, the bytes of a file, a PIL image or a numpy array"


def is_one_image(images: object) -> bool:
    """Whether an argument is a single image; an array of four axes is several."""
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return isinstance(images, str | os.PathLike | bytes | bytearray | Image.Image)


def read_images(images: object) -> Iterator[Image.Image]:
    """Decode images to RGB in threads, a few ahead; they are turned upright, and transparent parts become white.

    Raises:
        BadInput: an element is no image, or cannot be used; the message gives its position.
    """
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise BadInput(f"images must be {KINDS}, or a list of these, not {type(images).__name__}")
    return decode_in_threads(enumerate(images), lambda item: read_image(item[1], number=item[0]), max_pixels=MAX_PIXELS)


def read_image(image: object, *, number: int = 0) -> Image.Image:
    """Decode one image as `read_images` does.

    Args:
        image: a path, encoded bytes, a PIL image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8,
            uint16, bool, or floats from 0 to 1.
        number: position of the image, for messages.

    Raises:
        BadInput: it is no image, or cannot be used.
    """
    name = f"image {number}"
    try:
        if isinstance(image, str | os.PathLike):
            name = f"{name} ({os.fspath(image)})"
            return decode_image(Path(image).expanduser().read_bytes(), max_pixels=MAX_PIXELS, min_side=1)
        if isinstance(image, bytes | bytearray):
            return decode_image(bytes(image), max_pixels=MAX_PIXELS, min_side=1)
        if isinstance(image, np.ndarray):
            return to_upright_rgb(Image.fromarray(_to_bytes(image, name)))
        if isinstance(image, Image.Image):
            return _from_pil(image)
    except UnusableImage as error:
        raise BadInput(f"{name} cannot be used: {error}") from None
    except (OSError, ValueError, RuntimeError) as error:  # the last two: an impossible file name, or a closed image
        reason = error.strerror if isinstance(error, OSError) else None
        raise BadInput(f"{name} cannot be read: {reason or error}") from None
    raise BadInput(f"{name} is {type(image).__name__}: give {KINDS}")


def read_texts(texts: object) -> list[str]:
    """Check texts, and return them as a list.

    Raises:
        BadInput: an element is no text, or not UTF-8; the message gives its position.
    """
    if isinstance(texts, Mapping | bytes) or not isinstance(texts, Iterable):
        raise BadInput(f"texts must be a string or a list of strings, not {type(texts).__name__}")
    checked = list(texts)
    for number, text in enumerate(checked):
        if not isinstance(text, str):
            raise BadInput(f"text {number} is {type(text).__name__}: give a string or a list of strings")
        if not is_utf8(text):
            raise BadInput(f"text {number} has half of a surrogate pair, which no UTF-8 text has: {text!a:.100}")
    return checked


def require_count(name: str, count: object) -> None:
    """Check a number of images, texts or results.

    Args:
        name: of the argument.
        count: should be an integer from 1, of Python or numpy.

    Raises:
        BadInput: it is not.
    """
    if not isinstance(count, Integral) or int(count) < 1:
        raise BadInput(f"{name} is {count!r}: give a number from 1 up")


def _from_pil(image: Image.Image) -> Image.Image:
    check_size(*image.size, max_pixels=MAX_PIXELS, min_side=1)
    info = image.info
    upright = to_upright_rgb(image)
    image.info = info  # an upright RGB image is returned as the same object, stripped of its metadata
    return upright


def _to_bytes(array: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    """Scale an array to levels from 0 to 255, and drop a last axis of length 1."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in CHANNELS):
        raise BadInput(f"{name} is an array of shape {array.shape}: give (H, W), (H, W, 3) or (H, W, 4)")
    check_size(array.shape[1], array.shape[0], max_pixels=MAX_PIXELS, min_side=1)
    levels = array[..., 0] if array.shape[2:] == (1,) else array
    if levels.dtype == np.uint8:
        return np.ascontiguousarray(levels, np.uint8)
    white = np.iinfo(np.uint16).max if levels.dtype == np.uint16 else 1
    if levels.dtype not in (np.uint16, np.bool_):
        if not np.issubdtype(levels.dtype, np.floating):
            raise BadInput(f"{name} is an array of {array.dtype}: give uint8, uint16, bool or floats from 0 to 1")
        if not (levels.min() >= 0 and levels.max() <= 1):  # also if one of them is NaN
            raise BadInput(
                f"{name} is an array of floats outside of 0 to 1: divide it by the value of white, or give uint8"
            )
    return (levels.astype(np.float32) * (255 / white)).round().astype(np.uint8)


def read_name(name: object, kind: str) -> str:
    """The name of a model, an index or a folder: a URI, a path or a name on the hub.

    Args:
        name: a text or a path.
        kind: what it names, for the message.

    Raises:
        BadInput: it is neither, or a path that no file can have.
    """
    text = name if isinstance(name, str) else os.fspath(name) if isinstance(name, os.PathLike) else None
    if not isinstance(text, str):
        raise BadInput(f"the name of {kind} is {type(name).__name__}: give a text or a path")
    if not is_uri(text):
        folder_path(text)
    return text


def folder_path(folder: str | os.PathLike[str]) -> Path:
    """The path of a folder, `~` resolved.

    Raises:
        BadInput: it is no path, or one that no folder can have.
    """
    if not isinstance(folder, str | os.PathLike):
        raise BadInput(f"a folder is {type(folder).__name__}: give a text or a path")
    try:
        path = Path(folder).expanduser()
        path.lstat()
    except FileNotFoundError:
        return path
    except (OSError, ValueError, RuntimeError) as error:  # too long, with a NUL, or the home of a user who is unknown
        raise BadInput(f"{os.fspath(folder)!a:.100} cannot be a folder: {error!s:.100}") from None
    return path
