"""Reads the manifest in pieces and counts what is wrong with it, so that memory does not grow with the data.

Beside what single rows show, it finds what the manifest itself does not state: repeats, leaks between splits, images
that look alike, and whether the shards match it.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cots.data.manifest import MADE, read_pieces
from cots.data.quality.look_alikes import LookAlikes
from cots.data.quality.row_checks import RowCheck, derive_columns
from cots.data.quality.shard_checks import INTACT, compare_shard
from cots.data.quality.tally import Tally
from cots.data.samples import GALLERY

MAX_HASHES = 2**27  # in memory at a time, 1 GiB: more rows are compared in several passes over the file
ROW_COLUMNS = ["key", "id", "split", "media", "captions", "wrong", "frames", "width", "height", "bytes"]
HASH_COLUMNS = ["split", "pixel_hash", "dhash"]


@dataclass(slots=True, kw_only=True)
class Audit:
    """What an audit counts.

    Attributes:
        checks: by title, those of the row checks.
        keys, ids: which of them occur more than once.
        repeats: samples whose pixels occur earlier in their split, as the same kind of media; not counting `GALLERY`.
        leaks: samples of val and test whose pixels occur in train.
        opened: samples in the shards that were opened, and how they differ from the manifest.
        alike: number of samples in val and test that look like one in train.
        parts: number of samples by split and media, such as `train image`.
        captions: number of captions; wrong: how many of them describe another image.
    """

    checks: dict[str, Tally]
    keys: Tally
    ids: Tally
    repeats: Tally
    leaks: Tally
    opened: Tally
    alike: int
    parts: dict[str, int]
    captions: int
    wrong: int


def audit_manifest(
    manifest: Path,
    shards: Path,
    suspects: pd.DataFrame,
    checks: list[RowCheck],
    *,
    sampled_shards: int,
    max_pixels: int,
) -> Audit:
    """Check every row, compare rows with each other, and open some shards.

    Pixels of different splits are compared by 64 bits: of 15 million samples, two agree by chance in one data set of
    100,000.

    Args:
        manifest: as stage `prepare` writes it.
        shards: the shard folder.
        suspects: pairs that a trained filter distrusts, from `read_suspects`.
        checks: of the columns that `derive_columns` gives.
        sampled_shards: maximum number of shards to open.
        max_pixels: of a frame that is decoded.
    """
    tallies: dict[str, Tally] = {check.title: Tally() for check in checks}
    parts, captions, wrong = Counter[str](), 0, 0
    suspected = suspects["id"].value_counts()
    for piece in read_pieces(manifest, [*ROW_COLUMNS, *({MADE} & set(pq.read_schema(manifest).names))]):
        columns = derive_columns(piece, suspected)
        for check in checks:
            values = columns[check.column]
            tallies[check.title].add(values, check.passes(values))
        parts.update(columns["part"].tolist())
        captions += int(columns["captions"].sum())
        wrong += int(columns["wrong"].sum())
    leaks, alike = _compare_splits(manifest)
    return Audit(
        checks=tallies,
        keys=_find_shared(manifest, "key"),
        ids=_find_shared(manifest, "id"),
        repeats=_find_repeats(manifest),
        leaks=leaks,
        opened=_open_shards(manifest, shards, max_shards=sampled_shards, max_pixels=max_pixels),
        alike=alike,
        parts=dict(parts),
        captions=captions,
        wrong=wrong,
    )


def _compare_splits(manifest: Path) -> tuple[Tally, int]:
    """Samples of val and test whose pixels occur in train, and the number of those that look like one there."""
    held_out = list(_hashes(manifest, lambda split: ~split.isin(["train", GALLERY])))
    pixels, counts = np.unique(np.concatenate([piece[0] for piece in held_out]), return_counts=True)
    in_train, look_alikes = (
        np.zeros(len(pixels), np.bool_),
        LookAlikes(np.concatenate([piece[1] for piece in held_out])),
    )
    for train_pixels, train_dhashes in _hashes(manifest, lambda split: split == "train"):
        in_train[_places(pixels, train_pixels)] = True
        look_alikes.compare(train_dhashes)
    return Tally(int(counts.sum()), int(counts[in_train].sum())), look_alikes.count()


def _places(ascending: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Where some of the values stand in an array; those that it lacks are left out."""
    if not len(ascending):
        return np.empty(0, np.intp)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    found: NDArray[np.intp] = places[ascending[places] == values]
    return found


def _hashes(
    manifest: Path, is_selected: Callable[[pd.Series], pd.Series]
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Pixel hashes, by 64 bits, and difference hashes of some splits, piece by piece."""
    for piece in read_pieces(manifest, HASH_COLUMNS):
        rows = piece.to_pandas()
        rows = rows[is_selected(rows["split"])]
        dhashes = np.frombuffer(bytes.fromhex("".join(rows["dhash"].tolist())), ">u8").astype(np.uint64)
        yield _hash_rows(rows[["pixel_hash"]]), dhashes


def _find_shared(manifest: Path, column: str) -> Tally:
    """The values of a column that occur more than once."""
    checked, rows = _find_candidates(manifest, [column])
    tally = Tally(checked)
    tally.add_failing(rows.loc[rows.duplicated(keep=False), column])
    return tally


def _find_repeats(manifest: Path) -> Tally:
    """The samples whose pixels occur earlier in their split, as the same kind of media."""
    checked, rows = _find_candidates(manifest, ["split", "media", "pixel_hash"])
    return Tally(checked, int(rows.duplicated().sum()))


def _find_candidates(manifest: Path, columns: list[str]) -> tuple[int, pd.DataFrame]:
    """The number of rows, and those of them that may equal another in some columns, because their hashes are equal."""
    checked, candidates = 0, [pd.DataFrame(columns=columns)]
    for number in range(passes := 1 + pq.read_metadata(manifest).num_rows // MAX_HASHES):
        pieces = [hashes[hashes % passes == number] for hashes, _ in _hash_columns(manifest, columns)]
        hashes = np.sort(np.concatenate(pieces))
        repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        checked += len(hashes)
        if len(repeated):
            candidates += [rows[np.isin(hashes, repeated)] for hashes, rows in _hash_columns(manifest, columns)]
    return checked, pd.concat(candidates)


def _hash_columns(manifest: Path, columns: list[str]) -> Iterator[tuple[NDArray[np.uint64], pd.DataFrame]]:
    """Hashes and values of some columns, piece by piece, but for rows of `GALLERY` if the split is among them."""
    for piece in read_pieces(manifest, columns):
        rows = piece.to_pandas()
        if "split" in rows:
            rows = rows[rows["split"] != GALLERY]
        yield _hash_rows(rows), rows


def _hash_rows(rows: pd.DataFrame) -> NDArray[np.uint64]:
    hashes: NDArray[np.uint64] = np.asarray(pd.util.hash_pandas_object(rows, index=False, categorize=False))
    return hashes


def _open_shards(manifest: Path, shards: Path, *, max_shards: int, max_pixels: int) -> Tally:
    """Compare some shards, evenly spread over all, with their rows."""
    found = {name for piece in read_pieces(manifest, ["shard"]) for name in pc.unique(piece["shard"]).to_pylist()}
    names, tally = sorted(found), Tally()
    sampled = {names[round(i)] for i in np.linspace(0, len(names) - 1, min(max_shards, len(names)))}
    columns = ["shard", "key", "id", "captions", "frames", "pixel_hash"]
    pieces = [
        piece.filter(pc.is_in(piece["shard"], pa.array(sorted(sampled)))) for piece in read_pieces(manifest, columns)
    ]
    rows = pa.Table.from_batches(pieces).to_pandas()
    for name in rows["shard"].unique():
        opened = pd.Series(list(compare_shard(rows[rows["shard"] == name], shards / name, max_pixels=max_pixels)))
        tally.add(opened, opened == INTACT)
    return tally
