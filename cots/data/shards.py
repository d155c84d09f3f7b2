"""Shards: tar files of encoded frames and captions, byte-identical when written twice."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import webdataset as wds
from webdataset.tariterators import group_by_keys, tar_file_expander

from cots.data.samples import StoredSample
from cots.errors import BadInput
from cots.files import atomic_file


def shard_name(split: str, media: str, number: int) -> str:
    """The path of a shard below the shard folder, as the manifest's column `shard` names it."""
    return f"{split}/{media}-{number:05d}.tar"


def write_shard(path: Path, samples: list[StoredSample]) -> None:
    """Write one shard; a killed run leaves no half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as aside, aside.open("wb") as file, wds.TarWriter(file, mtime=0, encoder=False) as tar:
        for sample in samples:
            text = {"id": sample.id, "captions": sample.captions}
            members: dict[str, Any] = {"__key__": sample.key, "json": json.dumps(text, ensure_ascii=False).encode()}
            members |= {f"{number:03d}.jpg": frame for number, frame in enumerate(sample.frames)}
            tar.write(members)


def stored_sample(members: dict[str, Any]) -> StoredSample:
    """One undecoded webdataset sample, as the tar reader groups it, in our form."""
    text = json.loads(members["json"])
    frames = sorted((name for name in members if name.endswith(".jpg")), key=lambda name: (len(name), name))
    return StoredSample(
        key=members["__key__"],
        id=text["id"],
        captions=tuple(text["captions"]),
        frames=tuple(members[name] for name in frames),
    )


def read_shard(path: Path) -> Iterator[StoredSample]:
    """The samples of one shard in order.

    Raises:
        BadInput: the shard is missing or cut short.
    """
    if not path.is_file():
        raise BadInput(f"no shard {path}: run `dvc repro prepare`")
    try:
        with path.open("rb") as file:  # opened here: webdataset leaves the files that it opens to the garbage collector
            yield from map(stored_sample, group_by_keys(tar_file_expander([{"url": str(path), "stream": file}])))
    except (ValueError, OSError, EOFError, KeyError, tarfile.TarError) as error:
        reason = str(error.args[0]).partition(" @ ")[0]  # webdataset puts the file object behind it
        raise BadInput(f"shard {path} is damaged ({reason}): run `dvc repro --force prepare`") from error
