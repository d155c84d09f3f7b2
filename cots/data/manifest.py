"""The manifest: one row per sample, in the order of the shards."""

from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cots.data.samples import GALLERY
from cots.errors import BadInput
from cots.files import atomic_file

SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # digits: the sample's name in its shard
        ("id", pa.string()),  # the source's id, unique
        ("split", pa.string()),
        ("media", pa.string()),
        ("shard", pa.string()),  # relative to the shard folder
        ("captions", pa.list_(pa.string())),
        ("wrong", pa.list_(pa.bool_())),  # per caption: known to describe another image
        ("frames", pa.int32()),
        ("width", pa.int32()),  # pixels, of the original
        ("height", pa.int32()),
        ("bytes", pa.int64()),  # of all stored frames
        ("pixel_hash", pa.string()),  # of the first stored frame: equal for the same pixels
        ("dhash", pa.string()),  # 64-bit difference hash of the first frame, hex: close for images that look alike
        ("origin", pa.string()),
        ("metadata", pa.string()),  # JSON: what else the source says, by name; null if it says nothing
    ]
)

LANGUAGES, MADE = "languages", "made"
OPTIONAL = {  # columns of a manifest only where they say something
    LANGUAGES: pa.field(LANGUAGES, pa.list_(pa.string())),  # per caption its BCP 47 tag, or empty
    MADE: pa.field(MADE, pa.list_(pa.bool_())),  # per caption: made from a label, by a template or a language model
}

PIECE = 2**16  # rows in memory at a time where a table is not read as a whole
LAST_CHANGE = b"last_change"  # in the metadata of the file: number of the last change by request

REJECTED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("origin", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def schema_with(columns: Container[str]) -> pa.Schema:
    """The schema of a manifest that has some of the columns in `OPTIONAL`."""
    return pa.schema([*SCHEMA, *(field for name, field in OPTIONAL.items() if name in columns)])


def write_table(path: Path, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    """Write rows as Parquet; the same rows give the same bytes."""
    write_pieces(path, [rows], schema)


def write_pieces(path: Path, pieces: Iterable[list[dict[str, Any]]], schema: pa.Schema) -> None:
    """Write rows that come in pieces as Parquet, without any an empty table; the same pieces give the same bytes."""
    remaining = iter(pieces)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for rows in chain([next(remaining, [])], remaining):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def write_batches(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write rows as Parquet, `PIECE` of them to a row group; the same rows give the same bytes, however they come."""
    with atomic_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        waiting = schema.empty_table()
        for batch in batches:
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch], schema)])
            while len(waiting) > PIECE:
                writer.write_table(waiting.slice(0, PIECE).combine_chunks())
                waiting = waiting.slice(PIECE)
        writer.write_table(waiting.combine_chunks())


def select_part(manifest: pd.DataFrame, split: str, media: str) -> pd.DataFrame:
    """The rows of one split and one kind of media, in their order."""
    return manifest[(manifest["split"] == split) & (manifest["media"] == media)]


def select_captioned(manifest: pd.DataFrame) -> pd.DataFrame:
    """The rows that a model may be trained or measured on: all but those of samples without captions."""
    return manifest[manifest["split"] != GALLERY]


def read_last_change(path: Path) -> int:
    """Number of the last change by request that a manifest knows of; 0 without any."""
    return int((pq.read_schema(path).metadata or {}).get(LAST_CHANGE, 0))


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest; its columns are those of `SCHEMA`, and those of `OPTIONAL` that say something.

    Raises:
        BadInput: no such file.
    """
    _require(path)
    return pd.read_parquet(path)


def read_split(path: Path, split: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Read the rows of one split, or some columns of them.

    Raises:
        BadInput: no such file.
    """
    _require(path)
    return pd.read_parquet(path, columns=columns, filters=[("split", "==", split)])


def read_pieces(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read some columns of a manifest, up to `PIECE` rows at a time.

    Raises:
        BadInput: no such file.
    """
    _require(path)
    with pq.ParquetFile(path, pre_buffer=False) as file:  # which would keep all that is read until the end
        yield from file.iter_batches(PIECE, columns=list(columns))


def read_splits(path: Path, splits: Sequence[str], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read some columns of the rows of some splits, up to `PIECE` rows at a time; `split` must be one of the columns.

    Raises:
        BadInput: no such file.
    """
    for piece in read_pieces(path, columns):
        yield piece.filter(pc.is_in(piece["split"], pa.array(splits)))


def sample_captions(path: Path, limit: int) -> list[str]:
    """At most `limit` captions of a manifest, evenly spread over all.

    Raises:
        BadInput: no such file.
    """
    total = sum(len(piece["captions"].flatten()) for piece in read_pieces(path, ["captions"]))
    stride = 1 + (total - 1) // limit
    texts, first = list[str](), 0
    for piece in read_pieces(path, ["captions"]):
        flat = piece["captions"].flatten()
        texts += flat.take(np.arange(first, len(flat), stride)).to_pylist()
        first = (first - len(flat)) % stride
    return texts


def _require(path: Path) -> None:
    if not path.is_file():
        raise BadInput(f"no manifest {path}: run `dvc repro prepare`")
