"""Shards are tars as webdataset writes them."""

import json
import tarfile
from pathlib import Path

import pytest
import webdataset as wds

from cots.data.samples import StoredSample
from cots.data.shards import ShardReader, read_shard, write_shard
from cots.errors import BadInput

SAMPLES = [
    StoredSample(key="000000000", id="a.jpg", captions=("a dog", "x"), frames=(b"x" * 512,), languages=("en", "de")),
    StoredSample(key="000000001", id="b é", captions=(), frames=(b"", b"y" * 513)),
    StoredSample(key="10000000002", id="c", captions=("\u4e00",), frames=tuple(bytes([n % 256]) for n in range(1002))),
]


def test_a_shard_has_the_bytes_of_webdatasets_writer(tmp_path: Path) -> None:
    for number, samples in enumerate([SAMPLES, SAMPLES[:1], []]):
        path, other = tmp_path / f"{number}.tar", tmp_path / f"{number}.other"
        write_shard(path, samples)
        with other.open("wb") as file, wds.TarWriter(file, mtime=0, encoder=False) as tar:
            for sample in samples:
                text = {"id": sample.id, "captions": sample.captions}
                text |= {"languages": sample.languages} if sample.languages else {}
                frames = {f"{index:03d}.jpg": frame for index, frame in enumerate(sample.frames)}
                tar.write({"__key__": sample.key, "json": json.dumps(text, ensure_ascii=False).encode(), **frames})
        assert path.read_bytes() == other.read_bytes()
    assert list(read_shard(tmp_path / "0.tar")) == SAMPLES


def test_samples_of_a_shard_are_read_in_any_order(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", SAMPLES)
    shard = ShardReader(tmp_path / "0.tar")
    assert len(shard) == 3
    assert [shard[row] for row in (2, 0, 1, 2)] == [SAMPLES[row] for row in (2, 0, 1, 2)]


def test_a_shard_that_is_missing_cut_short_or_overwritten_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", SAMPLES)
    data = (tmp_path / "0.tar").read_bytes()
    with pytest.raises(BadInput, match="no shard .*none.tar: run `dvc repro prepare`"):
        ShardReader(tmp_path / "none.tar")
    for length in (0, 100, 512, 700, 1024, len(data) // 2, len(data) - tarfile.RECORDSIZE):
        (tmp_path / "0.tar").write_bytes(data[:length])
        with pytest.raises(BadInput, match=r"0.tar is damaged \(.*\): run `dvc repro --force prepare`"):
            ShardReader(tmp_path / "0.tar")
    (tmp_path / "0.tar").write_bytes(data[:100] + b"\1" + data[101:])  # in the mode of the first member
    with pytest.raises(BadInput, match=r"0.tar is damaged \(bad checksum\)"):
        ShardReader(tmp_path / "0.tar")[0]
