"""Past one machine's memory: what the stages do with tables, at the row counts of large data sets and without images.

A synthetic manifest, then each part in a process of its own: seconds and the peak of memory.
`python -m benchmarks.scale FOLDER ROWS` keeps manifest and outputs in a folder; 15.3 million rows need 20 GB.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cots.config.stages.validate import ValidateParams
from cots.data.ingest.block_files import Place
from cots.data.ingest.ledger import open_ledger
from cots.data.manifest import (
    PIECE,
    REJECTED_SCHEMA,
    SCHEMA,
    read_pieces,
    read_splits,
    sample_captions,
    write_pieces,
    write_table,
)
from cots.data.samples import sample_key
from cots.data.tokenizer import MAX_COUNTED
from cots.errors import RunFailed
from cots.factory.train_loader import read_samples
from cots.index.distinct_captions import DistinctCaptions
from cots.index.index_folder import ITEM_SCHEMA
from cots.stages import validate
from cots.stages.index import read_places, write_tables
from cots.training.pair_stats import PairStats

HELD_OUT, PER_SHARD = 50_000, 1000
LEAKS = 0.001  # fraction of the held-out images that are one of train
ODD = (0x27220A954BA1F2B3, 0x30ADA5C5AE1C4E5B)  # spread numbers over 64 bits
WORDS = [
    "a",
    "the",
    "red",
    "green",
    "small",
    "large",
    "dog",
    "cat",
    "bus",
    "street",
    "boat",
    "near",
    "under",
    "two",
    "in",
]


def main(rows: int = 200_000) -> None:
    """Print what each part takes."""
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), rows)


def smoke() -> None:
    """Run each part for two thousand rows."""
    with tempfile.TemporaryDirectory() as temporary:
        write_manifest(Path(temporary) / "manifest.parquet", 2_000)
        for part in PARTS.values():
            part(Path(temporary))


def measure(folder: Path, rows: int) -> None:
    """Write a manifest, unless the folder has one, and measure each part in a process of its own."""
    if not (folder / "manifest.parquet").exists():
        write_manifest(folder / "manifest.parquet", rows)
    print(f"{pq.read_metadata(folder / 'manifest.parquet').num_rows:,} rows, one caption each")
    for part in PARTS:
        subprocess.run([sys.executable, "-m", "benchmarks.scale", "part", part, str(folder)], check=True)


def run_part(name: str, folder: Path) -> None:
    """Run a part and print what it took."""
    before, wall, cpu = _peak(), time.perf_counter(), time.process_time()
    PARTS[name](folder)
    seconds = f"{time.perf_counter() - wall:8.0f} s, {time.process_time() - cpu:8.0f} s of CPU"
    print(f"  {name:<14} {seconds}, peak {_peak():.2f} GB, before it {before:.2f}", flush=True)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def run_prepare(folder: Path) -> None:
    """The tables of `prepare`: every row into the ledger, and from there into a manifest."""
    with open_ledger(folder / "ledger.sqlite") as ledger:
        for piece in read_pieces(folder / "manifest.parquet", SCHEMA.names):
            for row in piece.to_pylist():
                ledger.add_id(row["id"])
                ledger.add(row, Place(0, 0, (row["bytes"],)))
        write_pieces(folder / "again.parquet", ledger.samples(), SCHEMA)


def run_validate(folder: Path) -> None:
    """Stage `validate`; the shards that it opens are missing."""
    write_table(folder / "rejected.parquet", [], REJECTED_SCHEMA)
    (folder / "suspects.csv").write_text("id,caption,text,score,seen,dropped\n")
    names = ("shards", "manifest.parquet", "rejected.parquet", "suspects.csv", "validation")
    with suppress(RunFailed):
        validate.stage(*(folder / name for name in names), params=ValidateParams())


def run_set_up(folder: Path) -> None:
    """What a training holds and reads of all samples before its first step."""
    manifest = folder / "manifest.parquet"
    samples = read_samples(manifest, ("image", "video"))
    PairStats(int(samples.caption_offsets[-1])).seen.fill_(1)
    sample_captions(manifest, MAX_COUNTED)


def run_pairs(folder: Path) -> None:
    """The table of all pairs at the end of a training, written by its first process."""
    manifest = folder / "manifest.parquet"
    stats = PairStats(sum(len(piece["captions"].flatten()) for piece in read_pieces(manifest, ["captions"])))
    stats.seen.fill_(1)
    stats.to_table(read_pieces(manifest, ["id", "captions"])).to_parquet(folder / "pairs.parquet", index=False)


def run_index(folder: Path) -> None:
    """The tables of stage `index`, of all rows: items and captions, and the captions' texts one after another."""
    read_items = partial(read_splits, folder / "manifest.parquet", ["train", "val", "test"])
    captions = DistinctCaptions.find(piece["captions"] for piece in read_items(["split", "captions"]))
    for texts in captions.texts(piece["captions"] for piece in read_items(["split", "captions"])):
        texts.to_pylist()
    for _ in read_places(read_items(["split", "shard", "key"])):
        pass
    write_tables(folder, partial(read_items, ITEM_SCHEMA.names), captions)


PARTS: dict[str, Callable[[Path], None]] = {
    "prepare": run_prepare,
    "validate": run_validate,
    "set-up": run_set_up,
    "pairs.parquet": run_pairs,
    "index": run_index,
}


def write_manifest(path: Path, rows: int) -> None:
    """Write a manifest of so many training images, and `HELD_OUT` of val and of test, but no more than a tenth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for table in _tables(rows):
            writer.write_table(table)


def _tables(rows: int) -> Iterator[pa.Table]:
    rng, held_out = np.random.default_rng(0), min(HELD_OUT, rows // 10)
    for series, (split, number) in enumerate((("train", rows), ("val", held_out), ("test", held_out))):
        for start in range(0, number, PIECE):
            yield _table(rng, split, 2 * series, np.arange(start, min(start + PIECE, number), dtype=np.uint64))


def _table(rng: np.random.Generator, split: str, series: int, numbers: NDArray[np.uint64]) -> pa.Table:
    size, offsets = len(numbers), pa.array(np.arange(len(numbers) + 1, dtype=np.int32))
    is_own = (split == "train") | (rng.random(size) >= LEAKS)
    images = np.where(is_own, numbers + np.uint64(10**12 * series), numbers)
    hashes = [[f"{value:016x}" for value in (images * np.uint64(odd)).tolist()] for odd in ODD]
    words = zip(rng.choice(WORDS, (size, 20)).tolist(), rng.integers(5, 21, size).tolist(), strict=True)
    columns: dict[str, Any] = {
        "key": [sample_key(series, number) for number in numbers.tolist()],
        "id": [f"{split}/{number % 997:03d}/{number:012d}.jpg" for number in numbers.tolist()],
        "split": [split] * size,
        "media": ["image"] * size,
        "shard": [f"{split}/image-{number // PER_SHARD:05d}.tar" for number in numbers.tolist()],
        "captions": pa.ListArray.from_arrays(offsets, pa.array([" ".join(row[:length]) for row, length in words])),
        "wrong": pa.ListArray.from_arrays(offsets, pa.array(np.zeros(size, np.bool_))),
        "frames": np.ones(size, np.int32),
        "width": rng.integers(300, 1000, size, dtype=np.int32),
        "height": rng.integers(300, 1000, size, dtype=np.int32),
        "bytes": rng.integers(5_000, 60_000, size),
        "pixel_hash": ["".join(halves) for halves in zip(*hashes, strict=True)],
        "dhash": hashes[0],
        "origin": ["captions.parquet"] * size,
        "metadata": pa.nulls(size, pa.string()),
    }
    return pa.table(columns, schema=SCHEMA)


if __name__ == "__main__":
    if sys.argv[1] == "part":
        run_part(sys.argv[2], Path(sys.argv[3]))
    else:
        measure(Path(sys.argv[1]), int(sys.argv[2]))
