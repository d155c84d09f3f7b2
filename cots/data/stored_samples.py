"""Stored samples by rows of the manifest or by id, and their decoded frames."""

from collections.abc import Iterable, Iterator
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
        samples = list(read_shard(shards / str(name)))
        if [sample.key for sample in samples] != group["key"].tolist():
            raise BadInput(
                f"shard {shards / str(name)} does not hold what the manifest says: run `dvc repro --force prepare`"
            )
        yield from samples


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
