"""Shards: tar files of encoded frames and captions; the same samples give the same bytes."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import webdataset as wds
from webdataset.tariterators import group_by_keys, tar_file_expander

from cots.data.samples import StoredSample
from cots.data.store import open_part
from cots.errors import BadInput
from cots.files import atomic_file


def shard_name(split: str, media: str, number: int) -> str:
    """A shard's path below the shard folder, as in the manifest's column `shard`."""
    return f"{split}/{media}-{number:05d}.tar"


def write_shard(path: Path, samples: list[StoredSample]) -> None:
    """Write one shard atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial, partial.open("wb") as file, wds.TarWriter(file, mtime=0, encoder=False) as tar:
        for sample in samples:
            text: dict[str, Any] = {"id": sample.id, "captions": sample.captions}
            if sample.languages:
                text["languages"] = sample.languages
            members: dict[str, Any] = {"__key__": sample.key, "json": json.dumps(text, ensure_ascii=False).encode()}
            members |= {f"{index:03d}.jpg": frame for index, frame in enumerate(sample.frames)}
            tar.write(members)


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
    try:
        # opened here, because webdataset leaves closing to the garbage collector
        with open_part(path, stage="prepare") as file:
            yield from map(parse_sample, group_by_keys(tar_file_expander([{"url": str(path), "stream": file}])))
    except FileNotFoundError:
        raise BadInput(f"no shard {path}: run `dvc repro prepare`") from None
    except (ValueError, OSError, EOFError, KeyError, tarfile.TarError) as error:
        reason = str(error.args[0]).partition(" @ ")[0]  # webdataset appends the file object
        raise BadInput(f"shard {path} is damaged ({reason}): run `dvc repro --force prepare`") from error
