"""What tells that a file is no longer the same, without reading it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from cots.data.bucket import BucketPath, in_bucket

State = tuple[str | int | float, ...]


def file_state(path: Path, root: Path, *, resolve: Callable[[Path], str] = os.path.realpath) -> State:
    """Where a file really lies, and its size, times and inode; `()` if it is not there.

    A file that was replaced or written to has another state, even if its size and the time of writing were restored,
    because nothing restores the time of the last change of its inode. A bucket knows size, time of writing and ETag.

    Args:
        path: the file, or a link to it.
        root: in a bucket, files outside this folder are not asked for.
        resolve: follows the links in the path of a folder; may remember folders.

    Raises:
        OSError: a bucket cannot be read, which says nothing about the file.
    """
    if in_bucket(path):
        return _object_state(path, root)
    try:
        entry = path.lstat()
        if stat.S_ISLNK(entry.st_mode):
            target, entry = os.path.realpath(path), path.stat()
        else:
            target = f"{resolve(path.parent)}/{path.name}"
    except (OSError, ValueError, RuntimeError):  # no such file, or a name that none can have
        return ()
    return target, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns, entry.st_ino


def _object_state(path: BucketPath, root: Path) -> State:
    target = path.resolve()
    if not target.is_relative_to(root.resolve()):
        return (str(target),)
    try:
        entry = target.stat()
    except FileNotFoundError:
        return ()
    return str(target), *entry
