"""The manifest: one row a sample, in the order in which the shards hold them."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cots.errors import BadInput
from cots.files import atomic_file

SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # nine digits: the sample's name in its shard
        ("id", pa.string()),  # the source's id, unique
        ("split", pa.string()),
        ("media", pa.string()),
        ("shard", pa.string()),  # relative to the shard folder
        ("captions", pa.list_(pa.string())),
        ("wrong", pa.list_(pa.bool_())),  # per caption: known not to describe the sample
        ("frames", pa.int32()),
        ("width", pa.int32()),  # pixels, of the original
        ("height", pa.int32()),
        ("bytes", pa.int64()),  # of all stored frames
        ("pixel_hash", pa.string()),  # of the first frame's stored pixels: equal means the same picture
        ("dhash", pa.string()),  # 64-bit difference hash of the first frame, hex: near means alike
        ("origin", pa.string()),
    ]
)

REJECTED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("origin", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def write_table(path: Path, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    """Write rows as parquet; the same rows give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as aside:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), aside)


def part(manifest: pd.DataFrame, split: str, media: str) -> pd.DataFrame:
    """The rows of one split and one kind of media, in their order."""
    return manifest[(manifest["split"] == split) & (manifest["media"] == media)]


def read_manifest(path: Path) -> pd.DataFrame:
    """The manifest as a frame with the columns of `SCHEMA`.

    Raises:
        BadInput: there is no such file.
    """
    if not path.is_file():
        raise BadInput(f"no manifest {path}: run `dvc repro prepare`")
    return pd.read_parquet(path)
