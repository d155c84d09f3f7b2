"""Folders whose files lie elsewhere: as immutable objects in a store, a folder or a bucket, named by their SHA-256.

A stage writes its parts, such as shards, into its output folder. If that folder is kept in a store, each part becomes
an object as soon as it is written, and the folder holds their list in place of the parts, `LIST`: names, bytes and
digests, with the address of the store in the file's metadata. The list is all that DVC sees: it hashes one small file,
and equal parts give an equal list. Readers open parts by the same paths as without a store, and check what they get.
"""

import io
import json
import mmap
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from cots.data.bucket import in_bucket, parse_location
from cots.digests import bytes_digest, file_digest
from cots.errors import BadInput
from cots.files import atomic_file, write_json

LIST = "objects.parquet"
RECORD_SUFFIX = ".object"  # of the record of a part that is not in the list yet
STORE = b"store"  # in the list's metadata: the address
SCHEMA = pa.schema([("part", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())])


class Stat(Protocol):
    """Size in bytes and time of writing, as of `os.stat`."""

    @property
    def st_size(self) -> int: ...  # noqa: D102
    @property
    def st_mtime(self) -> float: ...  # noqa: D102


class StoredObject(NamedTuple):
    """What a list says of a part."""

    bytes: int
    sha256: str


class ObjectList(NamedTuple):
    """The list of a folder.

    Attributes:
        store: where the objects lie.
        parts: by path relative to the folder, in the order of the paths.
    """

    store: Path
    parts: Mapping[str, StoredObject]


def read_list(folder: Path) -> ObjectList | None:
    """The list of a folder; None if the folder is not kept in a store.

    Raises:
        BadInput: the list is damaged.
    """
    path = folder / LIST
    try:
        stat = path.stat()
    except OSError:
        return None
    return _parse_list(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _parse_list(path: Path, _modified: int, _size: int) -> ObjectList:
    return parse_list(path)


def parse_list(path: Path) -> ObjectList:
    """Read the file of a list.

    Raises:
        BadInput: it is damaged.
    """
    try:
        table = pq.read_table(path)
        parts = {row["part"]: StoredObject(row["bytes"], row["sha256"]) for row in table.to_pylist()}
        return ObjectList(parse_location(table.schema.metadata[STORE].decode()), parts)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise BadInput(
            f"{path} is not a list of objects ({' '.join(str(error).split())}): restore it by `dvc checkout`"
        ) from None


def start_list(folder: Path, store: Path | None) -> None:
    """Begin a folder anew: with an empty list if its parts are to be kept in a store, or without one."""
    for record in [folder / LIST, *folder.rglob(f"*{RECORD_SUFFIX}")]:
        record.unlink(missing_ok=True)
    if store:
        folder.mkdir(parents=True, exist_ok=True)
        _write_list(folder, ObjectList(store, {}))


def finish_list(folder: Path) -> None:
    """Put the records of all parts that were kept into the list; nothing happens in a folder without one."""
    listed = read_list(folder)
    if listed is None:
        return
    records = sorted(folder.rglob(f"*{RECORD_SUFFIX}"))
    new = {path.relative_to(folder).as_posix().removesuffix(RECORD_SUFFIX): read_record(path) for path in records}
    _write_list(folder, ObjectList(listed.store, {**listed.parts, **new}))
    for record in records:
        record.unlink()


def _write_list(folder: Path, listed: ObjectList) -> None:
    rows = [{"part": name, **stored._asdict()} for name, stored in sorted(listed.parts.items())]
    schema = SCHEMA.with_metadata({STORE: str(listed.store)})
    with atomic_file(folder / LIST) as partial:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), partial)


def read_record(path: Path) -> StoredObject:
    """Read the record of a part that is not in the list yet."""
    return StoredObject(**json.loads(path.read_text(encoding="utf8")))


def keep_part(path: Path) -> None:
    """Move a part that was just written into the store of its folder; nothing happens in a folder without a list.

    The object is complete before it has its name, and the record is written last, so a killed writer leaves no part
    that cannot be read. An object that is there already is written again, which repairs a damaged one.

    Raises:
        BadInput: there is no such bucket.
    """
    if (found := _find_list(path)) is None:
        return
    store = found[1].store
    stored = StoredObject(path.stat().st_size, file_digest(path))
    _put(path, object_path(store, stored.sha256))
    write_json(_record(path), stored._asdict())
    path.unlink(missing_ok=True)


def _put(file: Path, target: Path) -> None:
    if in_bucket(target):
        try:
            target.filesystem.put_file(str(file), target.key)  # a bucket shows an object when all of it is there
        except FileNotFoundError:
            raise BadInput(
                f"cannot write {target}: there is no such bucket; create it, or correct prepare.store"
            ) from None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    try:
        shutil.move(file, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def object_name(sha256: str) -> str:
    """The path of an object in its store: in one of 256 folders, by the first two digits."""
    return f"{sha256[:2]}/{sha256}"


def object_path(store: Path, sha256: str) -> Path:
    """Where an object lies."""
    return store / object_name(sha256)


def has_part(path: Path) -> bool:
    """Whether a part need not be written: it is there as a file or, in a folder with a list, as an object."""
    if _find_list(path) is None:
        return path.is_file()
    if (found := _find_part(path)) is None:
        return False
    try:
        return object_path(found[0], found[1].sha256).stat().st_size == found[1].bytes
    except FileNotFoundError:
        return False


def part_digest(path: Path) -> bytes:
    """SHA-256 of a part, which is read only if it is a file.

    Raises:
        FileNotFoundError: no such part.
    """
    found = None if path.is_file() else _find_part(path)
    return bytes.fromhex(found[1].sha256 if found else file_digest(path))


def open_part(path: Path, *, stage: str) -> BinaryIO:
    """Open a part. One from a store is fetched as a whole and checked before anything is read of it.

    Args:
        path: in its folder, or directly in a folder of that.
        stage: that writes it, for the error message.

    Raises:
        FileNotFoundError: no such part.
        BadInput: its object is missing, or is not what the list says.
    """
    found = None if path.is_file() else _find_part(path)
    if found is None:
        return path.open("rb")
    store, stored = found
    file = object_path(store, stored.sha256)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{file}, which holds {path}, is missing: run `dvc repro --force {stage}`") from None
    if bytes_digest(data) != stored.sha256:
        raise BadInput(f"{file}, which holds {path}, was changed: remove it and run `dvc repro --force {stage}`")
    return io.BytesIO(data)


def map_part(path: Path, *, stage: str) -> mmap.mmap:
    """A part as memory that is read from disk where it is looked at; one from a store lies in a temporary file.

    Args:
        path: as of `open_part`; stage: likewise.

    Raises:
        FileNotFoundError: no such part.
        ValueError: it is empty.
        BadInput: its object is missing, or is not what the list says.
    """
    with open_part(path, stage=stage) as file:
        if not isinstance(file, io.BytesIO):
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with TemporaryFile() as copy:
            copy.write(file.getbuffer())
            copy.flush()
            return mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ)


def _find_part(path: Path) -> tuple[Path, StoredObject] | None:
    """The store and the object of a part that is no file."""
    if (found := _find_list(path)) is None:
        return None
    name, listed = found
    stored = read_record(_record(path)) if _record(path).is_file() else listed.parts.get(name)
    return (listed.store, stored) if stored else None


def _find_list(path: Path) -> tuple[str, ObjectList] | None:
    """The name of a part in the list that governs it, and that list."""
    for folder in path.parents[:2]:
        if listed := read_list(folder):
            return path.relative_to(folder).as_posix(), listed
    return None


def _record(path: Path) -> Path:
    return path.with_name(path.name + RECORD_SUFFIX)


def list_store(store: Path) -> Mapping[str, Stat]:
    """The files of a store, by their paths in it; {} if there is no such folder."""
    if in_bucket(store):
        return store.find()
    files = (Path(folder) / name for folder, _, names in os.walk(store) for name in names)
    stats = dict[str, Stat]()
    for file in files:
        with suppress(FileNotFoundError):  # written under another name in the meantime
            stats[file.relative_to(store).as_posix()] = file.stat()
    return stats
