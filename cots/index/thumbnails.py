"""Small copies of the frames of an index's items: what a person sees of a result."""

import io
import mmap
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

QUALITY = 90  # JPEG


def thumbnail_members(row: int, frames: Sequence[Image.Image], *, side: int) -> dict[str, str | bytes]:
    """The frames of item `row`, the longer side at most `side` pixels, as one sample of a webdataset tar."""
    members: dict[str, str | bytes] = {"__key__": f"{row:09d}"}
    return members | {f"{number:03d}.jpg": _small(frame, side) for number, frame in enumerate(frames)}


class Thumbnails:
    """Frames out of a tar of `preview_members`, found by their place in it; safe to read from several threads.

    Args:
        path: the tar; it may be removed while this is open.

    Raises:
        ValueError: it is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                self._places = {member.name: (member.offset_data, member.size) for member in tar}
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, tarfile.TarError) as error:
            raise ValueError(f"no previews in {path} ({error})") from None

    def jpeg(self, row: int, frame: int) -> bytes:
        """Frame number `frame` of item `row`.

        Raises:
            ValueError: there is no such frame.
        """
        name = f"{row:09d}.{frame:03d}.jpg"
        if name not in self._places:
            raise ValueError(f"{self._path} does not hold {name}")
        offset, size = self._places[name]
        return self._bytes[offset : offset + size]

    def picture(self, row: int, frame: int) -> Image.Image:
        """The same, decoded.

        Raises:
            ValueError: there is no such frame.
        """
        return Image.open(io.BytesIO(self.jpeg(row, frame))).convert("RGB")


def _small(frame: Image.Image, side: int) -> bytes:
    preview, file = frame.copy(), io.BytesIO()
    preview.thumbnail((side, side), Image.Resampling.LANCZOS)
    preview.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
