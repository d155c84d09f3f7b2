"""Reads a file of a source, which may name any path: nothing outside its folder is read."""

import os
from pathlib import Path

from cots.data.bucket import in_bucket
from cots.data.image_decoding import UnusableImage


def read_source_file(path: Path, *, root: Path, follow_symlinks: bool, max_bytes: int) -> bytes:
    """The content of a file.

    Args:
        path: as the source names it.
        root: files outside this folder are not read.
        follow_symlinks: whether a link in the folder may lead to a file elsewhere.
        max_bytes: larger files are not read.

    Raises:
        UnusableImage: it is outside, not there, cannot be read, or too large.
        OSError: a bucket cannot be read, which says nothing about the file.
    """
    try:
        file = locate_source_file(path, root, follow_symlinks=follow_symlinks)
        if not in_bucket(file) and not file.is_file():
            raise UnusableImage("no such file", str(path))
        check_bytes(file.stat().st_size, max_bytes)
        return file.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # of a link that leads to itself a RuntimeError
        if in_bucket(path) and not isinstance(error, FileNotFoundError):
            raise
        raise UnusableImage("no such file", f"{path}: {error}") from error


def check_bytes(size: int, max_bytes: int) -> None:
    """Check the size of an encoded file.

    Raises:
        UnusableImage: it is larger than `max_bytes`.
    """
    if size > max_bytes:
        raise UnusableImage("too many bytes", f"{size}, at most {max_bytes} are read")


def locate_source_file(path: Path, root: Path, *, follow_symlinks: bool) -> Path:
    """The file at a path below the root; a link may lead to a file elsewhere if it may be followed.

    Raises:
        UnusableImage: it is outside.
    """
    target = path.resolve()
    if target.is_relative_to(root.resolve()):
        return target
    if in_bucket(target):
        raise UnusableImage("outside the data folder", f"{path} is {target}")
    relative = Path(os.path.relpath(path, root))  # `..` goes with the name before it, even if that is a link
    if ".." in relative.parts:
        raise UnusableImage("outside the data folder", f"{path} leads to {target}")
    if not follow_symlinks:
        raise UnusableImage("outside the data folder", f"{path} leads to {target}: see prepare.follow_symlinks")
    return root / relative
