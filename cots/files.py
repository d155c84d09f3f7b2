"""Writing files and folders atomically."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path, and rename it to `path` at the end; after an error the old file is unchanged.

    Args:
        path: the file, in a folder that exists.
        durable: flush to disk, so that the file survives a power cut; for files that cannot be recreated.
    """
    partial = _partial_path(path)
    try:
        yield partial
        if durable:
            _flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if durable:
        _flush(path.parent)


@contextmanager
def atomic_folder(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give an empty temporary folder, and rename it to `path` at the end; after an error the old folder is unchanged.

    If the process is killed between the two renames that swap the folders, the next writer restores the old one.

    Args:
        path: the folder; its parents are created.
        durable: flush every file to disk, so that the folder survives a power cut.
    """
    partial, old = _partial_path(path), _partial_path(path.with_name(path.name + ".old"))
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if durable:
            for entry in (*partial.rglob("*"), partial):
                _flush(entry)
        _swap(path, partial, old)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if durable:
        _flush(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for this file or folder.

    Its writers may replace it by `atomic_file`.

    Raises:
        OSError: no such file.
    """
    while True:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), path.stat()):  # not replaced while waiting
                yield
                return
        finally:
            os.close(descriptor)


def write_json(path: Path, values: Mapping[str, Any], *, durable: bool = False) -> None:
    """Write a JSON file atomically, as `atomic_file` does; its folder exists."""
    with atomic_file(path, durable=durable) as partial:
        partial.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def _partial_path(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _swap(path: Path, new: Path, old: Path) -> None:
    """Replace `path` by `new` in two renames, because one rename cannot replace a folder that is not empty."""
    shutil.rmtree(old, ignore_errors=True)
    if not path.exists():
        new.rename(path)
        return
    path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
