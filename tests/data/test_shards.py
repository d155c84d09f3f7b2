"""Shards are tars as webdataset writes them."""

import json
from pathlib import Path

import webdataset as wds

from cots.data.samples import StoredSample
from cots.data.shards import read_shard, write_shard

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
