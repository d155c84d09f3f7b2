"""Thumbnails of all frames of an index's items, for display of search results."""

import io
import mmap
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from cots.data.object_cache import local_part

QUALITY = 90  # JPEG


def thumbnail_members(row: int, frames: Sequence[Image.Image], *, side: int) -> dict[str, str | bytes]:
    """Thumbnails of the frames of item `row`, at most `side` pixels long, as a sample of a webdataset tar."""
    return _name_members(row, [_shrink(frame, side) for frame in frames])


def _name_members(row: int, jpegs: Sequence[bytes]) -> dict[str, str | bytes]:
    return {"__key__": f"{row:09d}"} | {f"{number:03d}.jpg": jpeg for number, jpeg in enumerate(jpegs)}


class Thumbnails:
    """Random access to a tar of `thumbnail_members`; safe for several threads.

    Args:
        path: of the tar; it may be removed while this object is in use.

    Raises:
        ValueError: the file is missing or damaged.
        BadInput: see `local_part`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with local_part(path).open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                self._offsets = {member.name: (member.offset_data, member.size) for member in tar}
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, tarfile.TarError) as error:
            raise ValueError(f"no thumbnails in {path} ({error})") from None

    def jpeg(self, row: int, frame: int) -> bytes:
        """JPEG bytes of frame number `frame` of item `row`.

        Raises:
            ValueError: there is no such frame.
        """
        name = f"{row:09d}.{frame:03d}.jpg"
        if name not in self._offsets:
            raise ValueError(f"{self._path} does not contain {name}")
        offset, size = self._offsets[name]
        return self._bytes[offset : offset + size]

    def copy_members(self, row: int, *, frames: int, to_row: int) -> dict[str, str | bytes]:
        """The thumbnails of an item as those of another row, in the format of `thumbnail_members`.

        Raises:
            ValueError: the item has fewer frames.
        """
        return _name_members(to_row, [self.jpeg(row, frame) for frame in range(frames)])

    def image(self, row: int, frame: int) -> Image.Image:
        """The decoded frame.

        Raises:
            ValueError: there is no such frame, or it is damaged.
        """
        try:
            return Image.open(io.BytesIO(self.jpeg(row, frame)), formats=("JPEG",)).convert("RGB")
        except OSError as error:
            raise ValueError(f"{self._path}: frame {frame} of item {row} is damaged ({error})") from None


def _shrink(frame: Image.Image, side: int) -> bytes:
    thumbnail, file = frame.copy(), io.BytesIO()
    thumbnail.thumbnail((side, side), Image.Resampling.LANCZOS)
    thumbnail.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
