"""Folders whose files lie elsewhere: as immutable objects in a store, a folder or a bucket, named by their SHA-256.

A stage writes its parts, such as shards, into its output folder. If that folder is kept in a store, each part becomes
an object as soon as it is written, and the folder holds their list in place of the parts, `LIST`: names, bytes and
digests, with the address of the store in the file's metadata. The list is all that DVC sees: it hashes one small file,
and equal parts give an equal list. Readers open parts by the same paths as without a store, and check what they get. A
copy of the folder is a folder of the same parts.
"""

import io
import json
import mmap
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
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
STORE, STAGE = b"store", b"stage"  # in the list's metadata: the address, and who writes the folder
WRITERS = {"shards": "prepare", "tokens": "tokenize"}  # by the names of the folders whose lists do not say it
LARGE = {
    ".faiss",
    ".parquet",
    ".safetensors",
    ".tar",
}  # files that `keep_folder` keeps; people read others
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
        stage: that writes the folder; None in lists of `WRITERS`.
    """

    store: Path
    parts: Mapping[str, StoredObject]
    stage: str | None = None


class KeptPart(NamedTuple):
    """A part in a store.

    Attributes:
        path: in its folder.
        file: the object.
        stored: what the list says of it.
        remedy: what to do if that is not true.
    """

    path: Path
    file: Path
    stored: StoredObject
    remedy: str

    def missing(self) -> BadInput:
        """The error if there is no such object."""
        return BadInput(f"{self.file}, which holds {self.path}, is missing: {self.remedy}")

    def changed(self) -> BadInput:
        """The error if the object has another digest."""
        return BadInput(f"{self.file}, which holds {self.path}, was changed: remove it and {self.remedy}")


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
        metadata = table.schema.metadata
        stage = metadata[STAGE].decode() if STAGE in metadata else None
        return ObjectList(parse_location(metadata[STORE].decode()), parts, stage)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise BadInput(
            f"{path} is not a list of objects ({' '.join(str(error).split())}): restore it by `dvc checkout`"
        ) from None


def store_of(folder: Path) -> Path | None:
    """The store of a folder's parts; None if they are in the folder.

    Raises:
        BadInput: the list is damaged.
    """
    listed = read_list(folder)
    return listed.store if listed else None


def start_list(folder: Path, store: Path | None, *, stage: str | None = None) -> None:
    """Begin a folder anew: with an empty list if its parts are to be kept in a store, or without one.

    Args:
        folder: may not exist.
        store: None for no store.
        stage: that writes the folder, if it is not one of `WRITERS`.
    """
    for record in [folder / LIST, *folder.rglob(f"*{RECORD_SUFFIX}")]:
        record.unlink(missing_ok=True)
    if store:
        folder.mkdir(parents=True, exist_ok=True)
        _write_list(folder, ObjectList(store, {}, stage))


def follow_store(folder: Path, *, of: Path) -> None:
    """Keep the parts of a folder where those of another one are; if they have lain elsewhere, it begins anew."""
    if (store := store_of(of)) != store_of(folder):
        start_list(folder, store)


def finish_list(folder: Path) -> None:
    """Put the records of all parts that were kept into the list; nothing happens in a folder without one."""
    listed = read_list(folder)
    if listed is None:
        return
    records = sorted(folder.rglob(f"*{RECORD_SUFFIX}"))
    new = {path.relative_to(folder).as_posix().removesuffix(RECORD_SUFFIX): read_record(path) for path in records}
    _write_list(folder, listed._replace(parts={**listed.parts, **new}))
    for record in records:
        record.unlink()


def keep_folder(folder: Path, store: Path | None, *, stage: str) -> None:
    """Move the large files of a finished folder into a store and leave their list; nothing happens without a store.

    Args:
        folder: of a few files, such as an index or a model.
        store: see `store_of`.
        stage: that writes the folder.

    Raises:
        BadInput: there is no such bucket.
    """
    if store is None:
        return
    start_list(folder, store, stage=stage)
    for path in sorted(folder.rglob("*")):
        if path.suffix in LARGE and path.name != LIST:
            keep_part(path)
    finish_list(folder)


def _write_list(folder: Path, listed: ObjectList) -> None:
    rows = [{"part": name, **stored._asdict()} for name, stored in sorted(listed.parts.items())]
    schema = SCHEMA.with_metadata({STORE: str(listed.store)} | ({STAGE: listed.stage} if listed.stage else {}))
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


def replace_part(path: Path) -> None:
    """As `keep_part`, and then remove the object of the part that had this path before, which nothing else may name.

    Raises:
        BadInput: there is no such bucket.
    """
    before = find_part(path)
    keep_part(path)
    if before and before.stored.sha256 != part_digest(path).hex():
        before.file.unlink(missing_ok=True)


def remove_part(path: Path) -> None:
    """Remove a part that is not in a list yet: the file and, in a folder with a list, its object and record."""
    path.unlink(missing_ok=True)
    if kept := find_part(path):
        kept.file.unlink(missing_ok=True)
        _record(path).unlink()


def has_part(path: Path) -> bool:
    """Whether a part need not be written: it is there as a file or, in a folder with a list, as an object."""
    if _find_list(path) is None:
        return path.is_file()
    kept = find_part(path)
    return kept is not None and has_object(kept.file, kept.stored)


def has_object(file: Path, stored: StoredObject) -> bool:
    """Whether an object is there, with the size that a list or a record says."""
    try:
        return file.stat().st_size == stored.bytes
    except FileNotFoundError:
        return False


def part_digest(path: Path) -> bytes:
    """SHA-256 of a part, which is read only if it is a file.

    Raises:
        FileNotFoundError: no such part.
    """
    kept = None if path.is_file() else find_part(path)
    return bytes.fromhex(kept.stored.sha256 if kept else file_digest(path))


def open_part(path: Path) -> BinaryIO:
    """Open a part. One from a store is fetched as a whole and checked before anything is read of it.

    Args:
        path: in its folder, or directly in a folder of that.

    Raises:
        FileNotFoundError: no such part.
        BadInput: its object is missing, or is not what the list says.
    """
    kept = None if path.is_file() else find_part(path)
    if kept is None:
        return path.open("rb")
    try:
        data = kept.file.read_bytes()
    except FileNotFoundError:
        raise kept.missing() from None
    if bytes_digest(data) != kept.stored.sha256:
        raise kept.changed()
    return io.BytesIO(data)


def map_part(path: Path) -> mmap.mmap:
    """A part as memory that is read from disk where it is looked at; one from a store lies in a temporary file.

    Args:
        path: as of `open_part`.

    Raises:
        FileNotFoundError: no such part.
        ValueError: it is empty.
        BadInput: its object is missing, or is not what the list says.
    """
    with open_part(path) as file:
        if not isinstance(file, io.BytesIO):
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with TemporaryFile() as copy:
            copy.write(file.getbuffer())
            copy.flush()
            return mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ)


def find_part(path: Path) -> KeptPart | None:
    """The object of a part, whether or not it is there; None if no list and no record names it.

    Raises:
        BadInput: the list is damaged.
    """
    if (found := _find_list(path)) is None:
        return None
    folder, listed = found
    if (record := _record(path)).is_file():
        return _recorded(record, listed.store)
    name = path.relative_to(folder).as_posix()
    return _listed(folder, listed, name) if name in listed.parts else None


def kept_parts(folder: Path) -> Iterator[KeptPart]:
    """All parts that the list of a folder and its records name.

    Raises:
        BadInput: the list is damaged.
    """
    if listed := read_list(folder):
        yield from (_listed(folder, listed, name) for name in listed.parts)
        yield from (_recorded(record, listed.store) for record in sorted(folder.rglob(f"*{RECORD_SUFFIX}")))


def _listed(folder: Path, listed: ObjectList, name: str) -> KeptPart:
    stored, stage = listed.parts[name], listed.stage or WRITERS.get(folder.name, folder.name)
    remedy = f"run `dvc repro --force {stage}`"
    return KeptPart(folder / name, object_path(listed.store, stored.sha256), stored, remedy)


def _recorded(record: Path, store: Path) -> KeptPart:
    stored, path = read_record(record), record.with_name(record.name.removesuffix(RECORD_SUFFIX))
    remedy = f"remove {record} and run its stage, which then writes it again"
    return KeptPart(path, object_path(store, stored.sha256), stored, remedy)


def _find_list(path: Path) -> tuple[Path, ObjectList] | None:
    """The folder of a part with a list, and that list."""
    for folder in path.parents[:2]:
        if listed := read_list(folder):
            return folder, listed
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
