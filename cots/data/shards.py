"""Shards: tar files of encoded frames and captions; the same samples give the same bytes."""

import json
import mmap
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from webdataset.tariterators import group_by_keys, tar_file_expander

from cots.data.samples import StoredSample
from cots.data.store import map_part, open_part
from cots.errors import BadInput
from cots.files import atomic_file


def shard_name(split: str, media: str, number: int) -> str:
    """A shard's path below the shard folder, as in the manifest's column `shard`."""
    return f"{split}/{media}-{number:05d}.tar"


def write_shard(path: Path, samples: Iterable[StoredSample]) -> None:
    """Write one shard atomically, with the bytes that webdataset's `TarWriter` gives with mtime 0, in half its time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial, partial.open("wb") as file:
        for sample in samples:
            for name, data in sorted(_members(sample).items()):
                file.write(_header(f"{sample.key}.{name}", len(data)))
                file.write(data)
                file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
        file.write(bytes(2 * tarfile.BLOCKSIZE))
        file.write(bytes(-file.tell() % tarfile.RECORDSIZE))


def _members(sample: StoredSample) -> dict[str, bytes]:
    text: dict[str, Any] = {"id": sample.id, "captions": sample.captions}
    if sample.languages:
        text["languages"] = sample.languages
    frames = {f"{index:03d}.jpg": frame for index, frame in enumerate(sample.frames)}
    return {"json": json.dumps(text, ensure_ascii=False).encode(), **frames}


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o444
    member.uname = member.gname = "bigdata"
    return member.tobuf(tarfile.USTAR_FORMAT)


def parse_sample(members: dict[str, Any]) -> StoredSample:
    """Make a stored sample of one sample's tar members, grouped by webdataset and undecoded."""
    text = json.loads(members["json"])
    frames = sorted((name for name in members if name.endswith(".jpg")), key=lambda name: (len(name), name))
    return StoredSample(
        key=members["__key__"],
        id=text["id"],
        captions=tuple(text["captions"]),
        frames=tuple(members[name] for name in frames),
        languages=tuple(text.get("languages", ())),
    )


def read_shard(path: Path) -> Iterator[StoredSample]:
    """The samples of one shard, in order.

    Raises:
        BadInput: the shard is missing or cut short.
    """
    # opened here, because webdataset leaves closing to the garbage collector
    with _errors_of(path), open_part(path) as file:
        yield from map(parse_sample, group_by_keys(tar_file_expander([{"url": str(path), "stream": file}])))


class ShardReader:
    """The samples of one shard, each read when it is asked for; at first only the headers are read.

    Args:
        path: of the shard.

    Raises:
        BadInput: the shard is missing or cut short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _errors_of(path):
            self._bytes = map_part(path)
            self._starts = np.fromiter(_sample_starts(self._bytes), np.int64)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, row: int) -> StoredSample:
        start, stop = self._starts[row : row + 2].tolist()
        with _errors_of(self._path):
            return parse_sample(_members_of(self._bytes[start:stop]))


def _sample_starts(tar: mmap.mmap) -> Iterator[int]:
    """Where each sample begins, and at last where the last one ends."""
    position, key = 0, b""
    while (header := tar[position : position + tarfile.BLOCKSIZE])[:1].strip(b"\0"):
        name, size = header[: header.index(0)], int(header[124:135], 8)
        if (prefix := name.partition(b".")[0]) != key:
            key = prefix
            yield position
        position += tarfile.BLOCKSIZE + size + -size % tarfile.BLOCKSIZE
    if len(header) < tarfile.BLOCKSIZE:  # two blocks of zeros end a tar
        raise EOFError("unexpected end of data")
    yield position


def _members_of(data: bytes) -> dict[str, Any]:
    """The tar members of one sample by their names without its key, and the key."""
    members: dict[str, Any] = {}
    position = 0
    while position < len(data):
        header = tarfile.TarInfo.frombuf(data[position : position + tarfile.BLOCKSIZE], "utf8", "strict")
        position += tarfile.BLOCKSIZE
        members["__key__"], _, name = header.name.partition(".")
        members[name] = data[position : position + header.size]
        position += header.size + -header.size % tarfile.BLOCKSIZE
    return members


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Name the shard in errors about it."""
    try:
        yield
    except FileNotFoundError:
        raise BadInput(f"no shard {path}: run `dvc repro prepare`") from None
    except (ValueError, OSError, EOFError, KeyError, tarfile.TarError) as error:
        reason = str(error.args[0]).partition(" @ ")[0]  # webdataset appends the file object
        raise BadInput(f"shard {path} is damaged ({reason}): run `dvc repro --force prepare`") from error
