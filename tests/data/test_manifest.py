"""What is read of a manifest in pieces is what the whole table says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cots.data.manifest import SCHEMA, read_manifest, read_pieces, read_split, sample_captions, write_batches
from cots.errors import BadInput
from cots.factory.train_loader import read_samples
from cots.training.pair_stats import PairStats

CAPTIONS = [2, 1, 0, 3, 1, 1, 0, 5, 2, 1, 1]


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eleven rows, read three at a time."""
    monkeypatch.setattr("cots.data.manifest.PIECE", 3)
    rows = [
        {
            "key": f"{row * 7:09d}",
            "id": f"id {row}",
            "split": ["train", "val"][row % 5 == 4] if count else "gallery",
            "media": ["image", "video"][row % 4 == 3],
            "shard": f"train/image-{row // 2:05d}.tar",
            "captions": [f"{row}-{number}" for number in range(count)],
        }
        for row, count in enumerate(CAPTIONS)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "manifest.parquet")
    return tmp_path / "manifest.parquet"


@pytest.mark.parametrize("media", [("image",), ("image", "video")])
def test_a_loader_knows_of_the_samples_what_the_table_says(manifest: Path, media: tuple[str, ...]) -> None:
    samples, table = read_samples(manifest, media), read_manifest(manifest)
    selected = table[(table["split"] == "train") & table["media"].isin(media)]
    assert samples.keys.tolist() == table["key"].astype(int).tolist()
    assert samples.caption_offsets.tolist() == [0, *np.cumsum(CAPTIONS)]
    by_shard = {name: [*group.index] for name, group in selected.groupby("shard")}
    assert {name: [*rows] for name, rows in zip(samples.shards, samples.shard_rows, strict=True)} == by_shard
    assert samples.shards == sorted(set(selected["shard"]))


def test_rows_of_a_shard_that_do_not_follow_each_other_are_refused(manifest: Path) -> None:
    rows = read_manifest(manifest)
    pq.write_table(pa.Table.from_pandas(rows.iloc[[0, 2, 1, 3]], schema=SCHEMA, preserve_index=False), manifest)
    with pytest.raises(
        BadInput, match=r"the rows of train/image-00000.tar in the manifest do not follow each other: run .* prepare"
    ):
        read_samples(manifest, ("image", "video"))


def test_pair_statistics_name_each_caption_seen(manifest: Path) -> None:
    stats = PairStats(sum(CAPTIONS))
    stats.seen = torch.arange(len(stats.seen), dtype=torch.int32) % 3
    stats.score, stats.dropped = torch.rand(len(stats.seen)), stats.seen // 2
    rows = read_manifest(manifest)[["id", "captions"]].explode("captions").dropna()
    rows["caption"] = rows.groupby("id").cumcount()
    rows["score"], rows["seen"], rows["dropped"] = stats.score.numpy(), stats.seen.numpy(), stats.dropped.numpy()
    expected = rows[rows["seen"] > 0].drop(columns="captions").reset_index(drop=True)
    pd.testing.assert_frame_equal(stats.to_table(read_pieces(manifest, ["id", "captions"])), expected)


@pytest.mark.parametrize("limit", [1, 4, 5, 16, 17, 100])
def test_captions_are_sampled_evenly(manifest: Path, limit: int) -> None:
    texts = [text for captions in read_manifest(manifest)["captions"] for text in captions]
    assert sample_captions(manifest, limit) == texts[:: 1 + (len(texts) - 1) // limit]


def test_a_split_is_read_alone(manifest: Path) -> None:
    table = read_manifest(manifest)
    pd.testing.assert_frame_equal(read_split(manifest, "val"), table[table["split"] == "val"].reset_index(drop=True))


@pytest.mark.parametrize("rows", [0, 1, 3, 8, 9])
def test_a_table_has_the_same_bytes_however_its_rows_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("cots.data.manifest.PIECE", 3)
    schema = pa.schema([("id", pa.string()), ("captions", pa.list_(pa.string()))])
    table = pa.table({"id": [*map(str, range(rows))], "captions": [["a"] * (row % 3) for row in range(rows)]}, schema)
    for size in (1, 2, 100):
        write_batches(tmp_path / f"{size}.parquet", table.to_batches(size), schema)
    first, *others = [(tmp_path / f"{size}.parquet").read_bytes() for size in (1, 2, 100)]
    assert others == [first, first]
    assert pq.read_table(tmp_path / "1.parquet") == table
    groups = pq.read_metadata(tmp_path / "1.parquet")
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [
        min(3, rows - start) for start in range(0, max(rows, 1), 3)
    ]
