"""The members of tar files: listed by their headers, grouped by key, read one at a time, never unpacked."""

import tarfile
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePath
from tarfile import BLOCKSIZE, TarInfo
from typing import BinaryIO

from cots.data.samples import Fault
from cots.errors import BadInput

COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # first bytes of gzip, bzip2, xz and zstd
MAX_MEMBERS = 1_000_000  # of a tar; their headers are held in memory
SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")  # macOS also leaves ._NAME and __MACOSX
TEXT_SUFFIXES = {"txt", "json"}


def list_members(path: Path, name: PurePath | None = None) -> list[TarInfo]:
    """All members but folders, in order; a hard link is listed as a member with the bytes of the file it stands for.

    Args:
        path: of the tar.
        name: by which people know it; None if that is its path.

    Raises:
        BadInput: the file cannot be read, or is compressed, damaged, cut short or too long a tar.
    """
    name = name or path
    try:
        with path.open("rb") as file:
            if file.read(6).startswith(COMPRESSED):
                raise BadInput(f"{name} is compressed: unpack it to a plain tar")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:", encoding="utf8") as tar:
                members = list(islice(_read_headers(tar), MAX_MEMBERS + 1))
                if len(members) > MAX_MEMBERS:
                    raise BadInput(f"{name} has more than {MAX_MEMBERS:,} members: make several tars of it")
                _check_end(file, tar.offset)
    except BadInput:
        raise
    except Exception as error:  # tarfile raises nearly anything for damaged headers
        raise BadInput(f"{name} is damaged ({error}): fetch it again, or remove it") from None
    return _resolve_hard_links(members)


def read_member(file: BinaryIO, member: TarInfo, *, max_bytes: int) -> bytes | Fault:
    """The content of a member of an opened tar, or why it is not read."""
    if member.issym():
        return Fault("no such file", f"{member.name} is a link to {member.linkname}: pack with `tar --dereference`")
    if not member.isreg() or member.issparse():  # a sparse member of few bytes can claim any size
        return Fault("no such file", f"{member.name} is not stored as a plain file")
    if member.size > max_bytes:
        return Fault("too many bytes", f"{member.name} has {member.size:,} bytes, at most {max_bytes:,} are read")
    file.seek(member.offset_data)
    return file.read(member.size)


def _read_headers(tar: tarfile.TarFile) -> Iterator[TarInfo]:
    for member in tar:
        if member.size < 0 or tar.offset <= member.offset:  # the next header would be this one again
            raise tarfile.ReadError(f"{member.name} has a negative size")
        if not member.isdir():
            yield member


def _check_end(file: BinaryIO, offset: int) -> None:
    """Check that zeros follow the last member and nothing else, because tarfile takes a damaged header for the end."""
    file.seek(offset)
    if len(file.read(BLOCKSIZE)) < BLOCKSIZE:
        raise tarfile.ReadError("it is cut short")
    file.seek(offset)
    while chunk := file.read(1 << 20):
        if chunk.strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {offset}")


def _resolve_hard_links(members: list[TarInfo]) -> list[TarInfo]:
    files = {member.name: member for member in members if member.isreg()}
    resolved = []
    for member in members:
        target = files.get(member.linkname) if member.islnk() else None
        resolved.append(target.replace(name=member.name, deep=False) if target else member)
    return resolved


def group_members(members: Iterable[TarInfo], media_suffixes: Collection[str]) -> list[tuple[str, dict[str, TarInfo]]]:
    """Members by key, whether adjacent or not, in the order of the keys' first members.

    A key ends at the first dot of the file's name, as in webdataset, or at the last one if an image or video and a text
    share the longer key (`photo 10.20.30.png`, `photo 10.20.30.txt`). Files that systems leave behind are no members.

    Args:
        members: of one tar.
        media_suffixes: of images and videos.

    Returns:
        Keys, and members by the rest of their names: `jpg`, or `input.jpg`. A key whose member comes again begins anew.
    """
    named = [(member.name.removeprefix("./"), member) for member in members if not _is_system_file(member.name)]
    suffixes = defaultdict[str, set[str]](set)
    for name, _ in named:
        stem, _, suffix = name.rpartition(".")
        suffixes[stem].add(suffix.lower())
    pairs = {stem for stem, ends in suffixes.items() if ends & TEXT_SUFFIXES and not ends.isdisjoint(media_suffixes)}
    groups: list[tuple[str, dict[str, TarInfo]]] = []
    latest: dict[str, dict[str, TarInfo]] = {}
    for name, member in named:
        key, ending = _split_name(name, pairs)
        if key not in latest or ending in latest[key]:
            latest[key] = {}
            groups.append((key, latest[key]))
        latest[key][ending] = member
    return groups


def _split_name(name: str, pairs: Container[str]) -> tuple[str, str]:
    """The key of a member, and the rest of its name with the last suffix in lower case."""
    stem, _, suffix = name.rpartition(".")
    if stem in pairs:
        return stem, suffix.lower()
    folder, slash, base = name.rpartition("/")
    first, rest = base[:1], base[1:]  # a hidden file's dot is part of its key
    key, _, ending = rest.partition(".")
    inner, dot, suffix = ending.rpartition(".")
    return f"{folder}{slash}{first}{key}", f"{inner}{dot}{suffix.lower()}"


def _is_system_file(name: str) -> bool:
    *folders, base = name.split("/")
    return base.startswith("._") or base in SYSTEM_FILES or "__MACOSX" in folders
