"""Stored samples by rows of the manifest or by id, and their decoded frames."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pandas as pd
from PIL import Image

from cots.data.samples import StoredSample
from cots.data.shards import read_shard
from cots.data.stored_frames import open_frame
from cots.errors import BadInput


def read_stored_samples(shards: Path, rows: pd.DataFrame) -> Iterator[StoredSample]:
    """The stored samples of rows of the manifest, in their order.

    Args:
        shards: the shard folder.
        rows: all rows of one or more shards, such as those of a split or of one kind of media.

    Raises:
        BadInput: a shard is missing or damaged, or its samples are not those of its rows.
    """
    for name, group in rows.groupby("shard", sort=False):
        yield from _read_whole(shards / str(name), group["key"].tolist())


def read_whole_shards(shards: Path, rows: Iterable[tuple[str, str]]) -> Iterator[StoredSample]:
    """The stored samples of rows of the manifest that need not be in memory, in their order.

    Args:
        shards: the shard folder.
        rows: shard and key of each; all rows of a shard follow each other.

    Raises:
        BadInput: a shard is missing or damaged, or its samples are not those of its rows.
    """
    for name, group in groupby(rows, key=itemgetter(0)):
        yield from _read_whole(shards / name, [key for _, key in group])


def _read_whole(shard: Path, keys: list[str]) -> list[StoredSample]:
    samples = list(read_shard(shard))
    if [sample.key for sample in samples] != keys:
        raise BadInput(f"shard {shard} does not hold what the manifest says: run `dvc repro --force prepare`")
    return samples


def read_stored_by_id(shards: Path, manifest: pd.DataFrame, ids: Iterable[str]) -> dict[str, StoredSample]:
    """The stored samples with these ids; only the shards that hold one of them are read."""
    unique_ids = set(ids)
    names = manifest.loc[manifest["id"].isin(unique_ids), "shard"].unique()
    return {sample.id: sample for name in names for sample in read_shard(shards / name) if sample.id in unique_ids}


def decode_frames(sample: StoredSample) -> list[Image.Image]:
    """Decode the frames of a stored sample.

    Raises:
        BadInput: a frame cannot be decoded.
    """
    return [open_frame(sample, index) for index in range(len(sample.frames))]
