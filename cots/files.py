"""Files and folders that appear whole or not at all, and small JSON files."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Where to write a file that takes the place of `path` at the end; after an error the old one is still there.

    Args:
        path: in a folder that exists.
        durable: survive a power cut as well, for the price of a flush to the disk: for what cannot be made again.
    """
    aside = _partial_path(path)
    try:
        yield aside
        if durable:
            _flush(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    if durable:
        _flush(path.parent)


@contextmanager
def atomic_folder(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """An empty folder that takes the place of `path` at the end; after an error the old one is still there.

    A process that is killed between the two renames of the exchange leaves the old folder aside, where the next
    writer finds it.

    Args:
        path: the folders above it are made.
        durable: survive a power cut as well, for the price of a flush of every file.
    """
    aside, old = _partial_path(path), _partial_path(path.with_name(path.name + ".old"))
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        if durable:
            for made in (*aside.rglob("*"), aside):
                _flush(made)
        _exchange(path, aside, old)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if durable:
        _flush(path.parent)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON into a folder that exists."""
    with atomic_file(path) as aside:
        aside.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def _partial_path(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _exchange(path: Path, new: Path, old: Path) -> None:
    """Put `new` where `path` is: no rename replaces a folder that is not empty."""
    shutil.rmtree(old, ignore_errors=True)
    if not path.exists():
        new.rename(path)
        return
    path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
