"""Parts as files of this machine, for readers that need a path: an index is mapped, weights are read by name.

An object of a bucket is fetched into `folder()`, where it bears its digest, and is read from there the next time. What
nobody has opened for `MAX_AGE_DAYS` is removed when the next object is fetched; who has mapped it goes on. The folder
may be removed at any time. Objects of a store that is a folder are opened where they lie.
"""

import os
import time
from pathlib import Path

from cots.data.bucket import in_bucket
from cots.data.store import KeptPart, find_part
from cots.digests import file_digest
from cots.files import atomic_file, locked

MAX_AGE_DAYS = 7
SECONDS_PER_DAY = 86400


def folder() -> Path:
    """Where objects of buckets are kept: `~/.cache/cots`, or the folder `cots` in that of `XDG_CACHE_HOME`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cots"


def local_part(path: Path) -> Path:
    """A part as a file: itself or, from a store, the object or a copy of it, whose digest is compared each time.

    Args:
        path: as of `open_part`; it may name no part, and is returned then.

    Raises:
        BadInput: its object is missing, or is not what the list says.
    """
    kept = None if path.is_file() else find_part(path)
    if kept is None:
        return path
    if in_bucket(kept.file):
        return _fetch_once(kept)
    try:
        if file_digest(kept.file) != kept.stored.sha256:
            raise kept.changed()
    except FileNotFoundError:
        raise kept.missing() from None
    return kept.file


def _fetch_once(kept: KeptPart) -> Path:
    cache = folder()
    cache.mkdir(parents=True, exist_ok=True)
    copy = cache / kept.stored.sha256
    if not _is_whole(copy, kept):
        with locked(cache):
            if not _is_whole(copy, kept):  # another process may have fetched it in the meantime
                _remove_unused(cache)
                _fetch(kept, copy)
    os.utime(copy)
    return copy


def _is_whole(copy: Path, kept: KeptPart) -> bool:
    return copy.is_file() and file_digest(copy) == kept.stored.sha256


def _fetch(kept: KeptPart, copy: Path) -> None:
    assert in_bucket(kept.file)
    with atomic_file(copy) as partial:
        try:
            kept.file.filesystem.get_file(kept.file.key, str(partial))
        except FileNotFoundError:
            raise kept.missing() from None
        if file_digest(partial) != kept.stored.sha256:
            raise kept.changed()


def _remove_unused(cache: Path) -> None:
    oldest = time.time() - MAX_AGE_DAYS * SECONDS_PER_DAY
    for file in cache.iterdir():
        if file.stat().st_mtime < oldest:
            file.unlink()
