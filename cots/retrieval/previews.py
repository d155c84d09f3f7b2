"""Small copies of the frames of an index's items: what a person sees of a result."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

QUALITY = 90  # JPEG


def preview_members(row: int, frames: Sequence[Image.Image], *, side: int) -> dict[str, str | bytes]:
    """The frames of item `row`, the longer side at most `side` pixels, as one sample of a webdataset tar."""
    members: dict[str, str | bytes] = {"__key__": f"{row:09d}"}
    return members | {f"{number:03d}.jpg": _small(frame, side) for number, frame in enumerate(frames)}


def read_previews(path: Path, wanted: Sequence[tuple[int, int]]) -> list[Image.Image]:
    """Frames out of a tar of `preview_members`.

    Args:
        path: the tar.
        wanted: item row and frame number of each.

    Raises:
        ValueError: it is missing or damaged, or does not hold one of them.
    """
    names = [f"{row:09d}.{frame:03d}.jpg" for row, frame in wanted]
    missing = set(names)
    found: dict[str, Image.Image] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while missing and (member := tar.next()):
                if member.name in missing and (file := tar.extractfile(member)):
                    found[member.name] = Image.open(file).convert("RGB")
                    missing.remove(member.name)
    except (OSError, tarfile.TarError) as error:
        raise ValueError(f"no previews in {path} ({error})") from None
    if missing:
        raise ValueError(f"{path} does not hold {min(missing)}")
    return [found[name] for name in names]


def _small(frame: Image.Image, side: int) -> bytes:
    preview, file = frame.copy(), io.BytesIO()
    preview.thumbnail((side, side), Image.Resampling.LANCZOS)
    preview.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
