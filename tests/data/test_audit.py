from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cots.data.ingest.ingestor import IngestedSample, Ingestor
from cots.data.manifest import PIECE, SCHEMA
from cots.data.quality import audit as audit_module
from cots.data.quality.audit import ROW_COLUMNS, Audit, audit_manifest
from cots.data.quality.look_alikes import MAX_ALIKE_BITS
from cots.data.quality.row_checks import derive_columns, manifest_checks
from cots.data.quality.shard_checks import INTACT, compare_shard
from cots.data.samples import SPLITS, Sample, StoredSample
from cots.data.shards import read_shard, write_shard
from tests.stored import store

Encoded = Callable[..., bytes]
CHECKS = manifest_checks(min_side=8, max_pixels=10_000, max_frames=1, max_words=2, max_long=0, max_suspects=0)


@pytest.fixture
def stored(tmp_path: Path, make_image: Encoded) -> tuple[pd.DataFrame, Path]:
    """A manifest of eighteen images, six per split, in shards of three samples."""
    ingestor = Ingestor(
        root=tmp_path,
        withdrawn={},
        size=32,
        max_frames=1,
        min_side=8,
        max_pixels=10_000,
        max_bytes=10**6,
        max_seconds=60,
        max_caption_chars=50,
    )
    usable = []
    for number in range(18):
        split = SPLITS[number // 6]
        texts, data = (f"caption {number}", "more"), make_image(seed=number)
        sample = Sample(id=f"{number}", split=split, media="image", captions=texts, is_mismatched=(False, number == 2),
                        content=data, origin="here")  # fmt: skip
        ingested = ingestor(sample)
        assert isinstance(ingested, IngestedSample)
        usable.append(ingested)
    return pd.DataFrame(store(usable, tmp_path / "shards", samples_per_shard=3)), tmp_path / "shards"


def audit(manifest: pd.DataFrame, shards: Path, *, sampled: int = 100) -> Audit:
    suspects = pd.DataFrame({"id": ["3", "3", "5"], "caption": [0, 1, 0]})
    path = shards.parent / "manifest.parquet"
    pq.write_table(pa.Table.from_pylist(manifest.to_dict("records"), schema=SCHEMA), path)
    return audit_manifest(path, shards, suspects, CHECKS, sampled_shards=sampled, max_pixels=10_000)


def test_lists_become_counts() -> None:
    captions = [["a dog", "a\u3000black  dog \u2028 runs"], [], ["  ", "", "\u00a0"], ["one"]]
    rows = {
        "split": ["train", "gallery", "val", "test"],
        "captions": captions,
        "wrong": [[True, False], [], [True, True, False], []],
        "id": list("abcd"),
    }
    base = {"key": "", "media": "image", "frames": 1, "width": 70_000, "height": 70_000, "bytes": 1}
    piece = pa.Table.from_pylist([base | dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)])
    piece = piece.select(ROW_COLUMNS).cast(pa.schema([SCHEMA.field(name) for name in ROW_COLUMNS])).to_batches()[0]
    columns = derive_columns(piece, pd.Series({"c": 2}))
    assert columns["captions"].tolist() == [2, 0, 3, 1]
    assert columns["words"].tolist() == [max((len(text.split()) for text in texts), default=0) for texts in captions]
    assert columns["blank"].tolist() == [0, 0, 3, 0]
    assert columns["wrong"].tolist() == [1, 0, 2, 0]
    assert columns["wrong_held_out"].tolist() == [0, 0, 2, 0]
    assert columns["flags_and_captions"].tolist() == [(2, 2), (0, 0), (3, 3), (0, 1)]
    assert columns["uncaptioned"].tolist() == [False] * 4
    assert columns["suspected"].tolist() == [0, 0, 2, 0]
    assert columns["part"].tolist() == ["train image", "gallery image", "val image", "test image"]
    assert columns["pixels"].tolist() == [70_000**2] * 4
    end = derive_columns(piece.slice(2), pd.Series({"c": 2}))
    pd.testing.assert_frame_equal(end, columns[2:].reset_index(drop=True))


@pytest.mark.parametrize("rows_at_once", [4, PIECE])
@pytest.mark.parametrize("hashes_at_once", [5, audit_module.MAX_HASHES])
def test_repeats_leaks_and_look_alikes_agree_with_a_slow_search(
    stored: tuple[pd.DataFrame, Path], monkeypatch: pytest.MonkeyPatch, rows_at_once: int, hashes_at_once: int
) -> None:
    monkeypatch.setattr("cots.data.manifest.PIECE", rows_at_once)
    monkeypatch.setattr(audit_module, "MAX_HASHES", hashes_at_once)
    manifest, shards = stored
    rng = np.random.default_rng(0)
    manifest.loc[::5, "split"] = "gallery"
    manifest["id"] = [f"{n}" for n in rng.integers(0, 30, 18)]
    manifest["pixel_hash"] = [f"{n:032x}" for n in rng.integers(0, 6, 18)]
    manifest["dhash"] = [f"{n:016x}" for n in rng.integers(0, 64, 18)]  # six bits, so that many look alike
    audited = audit(manifest, shards, sampled=1)
    rows = manifest.to_dict("records")
    train = [row for row in rows if row["split"] == "train"]
    held_out = [row for row in rows if row["split"] in ("val", "test")]
    pixels = [(row["split"], row["pixel_hash"]) for row in rows if row["split"] != "gallery"]
    bits = [min((int(row["dhash"], 16) ^ int(t["dhash"], 16)).bit_count() for t in train) for row in held_out]
    leaking = [row for row in held_out if row["pixel_hash"] in {other["pixel_hash"] for other in train}]
    ids = Counter(row["id"] for row in rows)
    assert (audited.repeats.failing, audited.repeats.checked) == (len(pixels) - len(set(pixels)), len(pixels))
    assert (audited.leaks.failing, audited.leaks.checked) == (len(leaking), len(held_out))
    assert audited.alike == sum(number <= MAX_ALIKE_BITS for number in bits)
    assert (audited.ids.failing, audited.ids.checked) == (sum(n for n in ids.values() if n > 1), 18)
    assert set(audited.ids.examples) <= {name for name, number in ids.items() if number > 1}
    assert audited.keys.failing == 0
    assert audited.parts == dict(Counter(f"{row['split']} image" for row in rows))
    assert 0 < audited.repeats.failing < len(pixels)
    assert 0 < audited.leaks.failing < len(held_out)
    assert 0 < audited.alike < len(held_out)
    assert 0 < audited.ids.failing < 18


def test_without_val_and_test_nothing_leaks(stored: tuple[pd.DataFrame, Path]) -> None:
    manifest, shards = stored
    assert audit(manifest[:6], shards).leaks.checked == 0


@pytest.mark.parametrize("sampled", [1, 2, 5, 6, 50])
def test_as_many_shards_are_opened_as_requested(stored: tuple[pd.DataFrame, Path], sampled: int) -> None:
    opened = audit(*stored, sampled=sampled).opened
    assert (opened.checked, opened.failing) == (3 * min(sampled, 6), 0)


def recaptioned(samples: list[StoredSample], make_image: Encoded) -> list[StoredSample]:
    return [samples[0], replace(samples[1], captions=("other",)), samples[2]]


def repainted(samples: list[StoredSample], make_image: Encoded) -> list[StoredSample]:
    return [samples[0], replace(samples[1], frames=(make_image(seed=99),)), samples[2]]


def multiplied(samples: list[StoredSample], make_image: Encoded) -> list[StoredSample]:
    return [samples[0], replace(samples[1], frames=samples[1].frames * 2), samples[2]]


def cut(samples: list[StoredSample], make_image: Encoded) -> list[StoredSample]:
    return [samples[0], replace(samples[1], frames=(samples[1].frames[0][:300],)), samples[2]]


def dropped(samples: list[StoredSample], make_image: Encoded) -> list[StoredSample]:
    return samples[:2]


def added(samples: list[StoredSample], make_image: Encoded) -> list[StoredSample]:
    return [*samples, replace(samples[0], key="000000099")]


def reversed_(samples: list[StoredSample], make_image: Encoded) -> list[StoredSample]:
    return samples[::-1]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (recaptioned, [None, "captions differ in"]),
        (repainted, [None, "pixels differ in"]),
        (multiplied, [None, "frames differ in"]),
        (cut, [None, "unusable frame in"]),
        (dropped, [None, None, "missing in"]),
        (added, ["has 4 samples, the manifest names 3"] * 3),
        (reversed_, ["key and id and captions differ in", None, "key and id"]),
    ],
)
def test_a_difference_between_shard_and_manifest_is_reported_for_the_sample_concerned(
    stored: tuple[pd.DataFrame, Path],
    make_image: Encoded,
    change: Callable[..., list[StoredSample]],
    expected: list[Any],
) -> None:
    manifest, shards = stored
    path = shards / "val/image-00001.tar"
    write_shard(path, change(list(read_shard(path)), make_image))
    assert audit(manifest, shards).opened.failing == sum(message is not None for message in expected)
    opened = list(compare_shard(manifest[manifest["shard"] == "val/image-00001.tar"], path, max_pixels=10_000))
    for verdict, message in zip(opened, [*expected, None, None], strict=False):
        assert (message or INTACT) in verdict


@pytest.mark.parametrize("num_bytes", [0, 700, 2500])
def test_a_shard_that_is_cut_short_or_missing_is_reported_for_all_its_samples(
    stored: tuple[pd.DataFrame, Path], num_bytes: int
) -> None:
    manifest, shards = stored
    path = shards / "val/image-00001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:num_bytes]) if num_bytes else path.unlink()
    opened = audit(manifest, shards).opened
    assert opened.checked == 18
    assert 0 < opened.failing <= 3
