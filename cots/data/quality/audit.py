"""Facts that the manifest itself does not state: repeats, leaks between splits, and whether the shards match it."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cots.data.image_decoding import UnusableImage, decode_image
from cots.data.image_hashes import image_hashes
from cots.data.samples import GALLERY, StoredSample
from cots.data.shards import read_shard
from cots.errors import BadInput

MAX_ALIKE_BITS = 2  # of 64: images look alike if their difference hashes differ in no more bits
INTACT = "as the manifest says"
DERIVED = (
    "part",
    "blank",
    "words",
    "flags",
    "uncaptioned",
    "wrong_held_out",
    "pixels",
    "repeats",
    "leaks",
    "alike",
    "suspected",
    "opened",
)


def audit_manifest(
    manifest: pd.DataFrame, shards: Path, suspects: pd.DataFrame, *, sampled_shards: int, max_pixels: int
) -> pd.DataFrame:
    """Replace the manifest's lists by counts, and add what comparing rows and opening shards shows.

    Args:
        manifest: as stage `prepare` writes it.
        shards: the shard folder.
        suspects: pairs that a trained filter distrusts, from `read_suspects`.
        sampled_shards: maximum number of shards to open.
        max_pixels: of a frame that is decoded.

    Returns:
        The manifest's rows and index. `captions` and `wrong` are counts, and there are the columns `DERIVED`:
        `part`: split and media, such as `train image`;
        `blank`: number of blank captions;
        `words`: of the longest caption;
        `flags`: length of `wrong`;
        `wrong_held_out`: `wrong` in val and test, 0 in train;
        `pixels`: width times height;
        `repeats`: whether the same pixels occur earlier in the split; None for rows of `GALLERY`;
        `uncaptioned`: whether it has no caption, outside `GALLERY`;
        `leaks`, `alike`: whether the same or similar pixels occur in train; None for rows of train and `GALLERY`;
        `suspected`: number of captions that are suspects;
        `opened`: `INTACT`, or how the sample in the shard differs; None if the shard was not opened.
    """
    captions, wrong = manifest["captions"], manifest["wrong"]
    in_gallery, in_train = manifest["split"] == GALLERY, manifest["split"] == "train"
    held_out = ~(in_gallery | in_train)
    repeats = manifest.duplicated(["split", "media", "pixel_hash"])
    leaks = manifest["pixel_hash"].isin(manifest.loc[in_train, "pixel_hash"])
    alike = pd.Series(_look_alike(manifest, held_out.to_numpy(), in_train.to_numpy()), index=manifest.index)
    return manifest.assign(
        part=manifest["split"] + " " + manifest["media"],
        captions=captions.map(len),
        blank=captions.map(lambda texts: sum(not text.strip() for text in texts)),
        words=captions.map(lambda texts: max((len(text.split()) for text in texts), default=0)),
        flags=wrong.map(len),
        uncaptioned=(captions.map(len) == 0) & ~in_gallery,
        wrong=wrong.map(sum).astype("int64"),
        wrong_held_out=wrong.map(sum).astype("int64").where(held_out, 0),
        pixels=manifest["width"].astype("int64") * manifest["height"],
        repeats=repeats.astype("boolean").where(~in_gallery),
        leaks=leaks.astype("boolean").where(held_out),
        alike=alike.astype("boolean").where(held_out),
        suspected=manifest["id"].map(suspects["id"].value_counts()).fillna(0).astype("int64"),
        opened=_open_shards(manifest, shards, max_shards=sampled_shards, max_pixels=max_pixels),
    )


def _look_alike(manifest: pd.DataFrame, held_out: NDArray[np.bool_], in_train: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """For each row of val and test, whether an image of train looks alike."""
    hashes = np.array([int(digits, 16) for digits in manifest["dhash"]], dtype=np.uint64)
    train = np.unique(hashes[in_train])
    alike = np.zeros(len(manifest), dtype=np.bool_)
    for rows in np.array_split(np.flatnonzero(held_out), 1 + len(manifest) // 256):
        distances = np.bitwise_count(hashes[rows, None] ^ train)  # (rows, train)
        alike[rows] = (distances <= MAX_ALIKE_BITS).any(axis=1)
    return alike


def _open_shards(manifest: pd.DataFrame, shards: Path, *, max_shards: int, max_pixels: int) -> pd.Series:
    """The column `opened`; the shards to open are evenly spread over all."""
    names = sorted(manifest["shard"].unique())
    sampled = {names[round(i)] for i in np.linspace(0, len(names) - 1, min(max_shards, len(names)))}
    opened = pd.Series(None, index=manifest.index, dtype="object")
    for name in sorted(sampled):
        rows = manifest[manifest["shard"] == name]
        opened[rows.index] = list(_compare_shard(rows, shards / name, max_pixels=max_pixels))
    return opened


def _compare_shard(rows: pd.DataFrame, shard: Path, *, max_pixels: int) -> Iterator[str]:
    """For each row, `INTACT` or how the shard differs from it."""
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
