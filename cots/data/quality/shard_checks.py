"""Compares what a shard holds with what the manifest says of it."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from cots.data.image_decoding import UnusableImage, decode_image
from cots.data.image_hashes import image_hashes
from cots.data.samples import StoredSample
from cots.data.shards import read_shard
from cots.errors import BadInput

INTACT = "as the manifest says"


def compare_shard(rows: pd.DataFrame, shard: Path, *, max_pixels: int) -> Iterator[str]:
    """Compare a shard with its rows of the manifest: for each row, `INTACT` or how the shard differs from it.

    Args:
        rows: all rows of the shard, in their order.
        shard: the file.
        max_pixels: of a frame.
    """
    try:
        stored = list(read_shard(shard))
    except BadInput as error:
        yield from [str(error)] * len(rows)
        return
    if len(stored) > len(rows):
        yield from [f"{shard.name} has {len(stored)} samples, the manifest names {len(rows)}"] * len(rows)
        return
    for row, sample in zip_longest(rows.to_dict("records"), stored):
        yield _compare_sample(row, sample, max_pixels=max_pixels)


def _compare_sample(row: dict[Any, Any], sample: StoredSample | None, *, max_pixels: int) -> str:
    if sample is None:
        return f"missing in {row['shard']}"
    expected = {"key": row["key"], "id": row["id"], "captions": list(row["captions"]), "frames": row["frames"]}
    actual = {"key": sample.key, "id": sample.id, "captions": list(sample.captions), "frames": len(sample.frames)}
    if differing := [name for name in expected if expected[name] != actual[name]]:
        return f"{' and '.join(differing)} differ in {row['shard']}"
    try:
        frames = [decode_image(frame, max_pixels=max_pixels, min_side=1) for frame in sample.frames]
    except UnusableImage as error:
        return f"unusable frame in {row['shard']}: {error}"
    return INTACT if image_hashes(frames[0])[0] == row["pixel_hash"] else f"pixels differ in {row['shard']}"
