"""What the manifest does not say of itself: repeats, leaks between splits, and whether shards hold what it names."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cots.data.image_decoding import UnusableImage, decode_image
from cots.data.image_hashes import image_hashes
from cots.data.samples import StoredSample
from cots.data.shards import read_shard
from cots.errors import BadInput

ALIKE_BITS = 2  # of 64: difference hashes that differ in no more belong to pictures that look the same
SOUND = "as the manifest says"
DERIVED = (
    "part",
    "blank",
    "words",
    "flags",
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
    """The manifest with lists replaced by figures, and what is known by comparing rows and opening shards.

    Args:
        manifest: as stage `prepare` writes it.
        shards: the shard folder.
        suspects: pairs that a trained filter distrusts: `id`, and `caption`, its number.
        sampled_shards: how many to open, at most.
        max_pixels: of a frame that is decoded.

    Returns:
        The manifest's rows and index; `captions` and `wrong` are counts, and there are, besides,
        `part`: split and medium, `train image`;
        `blank`: captions of blanks only; `words`: of the longest caption; `flags`: length of `wrong`;
        `wrong_held_out`: `wrong` outside train; `pixels`: width times height;
        `repeats`: whether the same pixels occur before in the split;
        `leaks` and `alike`: whether equal or alike pixels occur in train, none for train itself;
        `suspected`: how many of its captions are suspects;
        `opened`: `SOUND`, or what is wrong with the sample in its shard, none where the shard was not opened.
    """
    captions, wrong = manifest["captions"], manifest["wrong"]
    held_out = manifest["split"] != "train"
    leaks = manifest["pixel_hash"].isin(manifest.loc[~held_out, "pixel_hash"])
    alike = pd.Series(_alike(manifest, held_out.to_numpy()), index=manifest.index)
    return manifest.assign(
        part=manifest["split"] + " " + manifest["media"],
        captions=captions.map(len),
        blank=captions.map(lambda texts: sum(not text.strip() for text in texts)),
        words=captions.map(lambda texts: max((len(text.split()) for text in texts), default=0)),
        flags=wrong.map(len),
        wrong=wrong.map(sum).astype("int64"),
        wrong_held_out=wrong.map(sum).astype("int64").where(held_out, 0),
        pixels=manifest["width"].astype("int64") * manifest["height"],
        repeats=manifest.duplicated(["split", "media", "pixel_hash"]),
        leaks=leaks.astype("boolean").where(held_out),
        alike=alike.astype("boolean").where(held_out),
        suspected=manifest["id"].map(suspects["id"].value_counts()).fillna(0).astype("int64"),
        opened=_opened(manifest, shards, number=sampled_shards, max_pixels=max_pixels),
    )


def _alike(manifest: pd.DataFrame, held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    hashes = np.array([int(digits, 16) for digits in manifest["dhash"]], dtype=np.uint64)
    train = np.unique(hashes[~held_out])
    found = np.zeros(len(manifest), dtype=np.bool_)
    for rows in np.array_split(np.flatnonzero(held_out), 1 + len(manifest) // 256):
        bits = np.bitwise_count(hashes[rows, None] ^ train)  # (rows, train)
        found[rows] = (bits <= ALIKE_BITS).any(axis=1)
    return found


def _opened(manifest: pd.DataFrame, shards: Path, *, number: int, max_pixels: int) -> pd.Series:
    """A verdict on every sample of some shards, which are evenly spread over all."""
    names = sorted(manifest["shard"].unique())
    chosen = {names[round(i)] for i in np.linspace(0, len(names) - 1, min(number, len(names)))}
    told = pd.Series(None, index=manifest.index, dtype="object")
    for name in sorted(chosen):
        rows = manifest[manifest["shard"] == name]
        told[rows.index] = list(_held_against(rows, shards / name, max_pixels=max_pixels))
    return told


def _held_against(rows: pd.DataFrame, shard: Path, *, max_pixels: int) -> Iterator[str]:
    """One verdict for each row; a shard that holds more tells so in the last."""
    try:
        stored = list(read_shard(shard))
    except BadInput as error:
        yield from [str(error)] * len(rows)
        return
    if len(stored) > len(rows):
        stored, rest = stored[: len(rows)], len(stored) - len(rows)
        yield from [f"{shard.name} holds {rest} samples more than the manifest"] * len(rows)
        return
    for row, sample in zip_longest(rows.to_dict("records"), stored):
        yield _verdict(row, sample, max_pixels=max_pixels)


def _verdict(row: dict[Any, Any], sample: StoredSample | None, *, max_pixels: int) -> str:
    if sample is None:
        return f"missing in {row['shard']}"
    known = {"key": row["key"], "id": row["id"], "captions": list(row["captions"]), "frames": row["frames"]}
    found = {"key": sample.key, "id": sample.id, "captions": list(sample.captions), "frames": len(sample.frames)}
    if differing := [name for name in known if known[name] != found[name]]:
        return f"another {' and '.join(differing)} in {row['shard']}"
    try:
        frames = [decode_image(frame, max_pixels=max_pixels, min_side=1) for frame in sample.frames]
    except UnusableImage as error:
        return f"a frame in {row['shard']} is {error}"
    return SOUND if image_hashes(frames[0])[0] == row["pixel_hash"] else f"other pixels in {row['shard']}"
