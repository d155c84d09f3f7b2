from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cots.data.ingest.ingestor import IngestedSample, Ingestor
from cots.data.ingest.shard_writer import ShardWriter
from cots.data.quality.audit import INTACT, MAX_ALIKE_BITS, audit_manifest
from cots.data.samples import SPLITS, Sample, StoredSample
from cots.data.shards import read_shard, write_shard

Encoded = Callable[..., bytes]


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
    writer = ShardWriter(tmp_path / "shards", samples_per_shard=3)
    rows = []
    for number in range(18):
        split = SPLITS[number // 6]
        texts, data = (f"caption {number}", "more"), make_image(seed=number)
        sample = Sample(id=f"{number}", split=split, media="image", captions=texts, is_mismatched=(False, number == 2),
                        content=data, origin="here")  # fmt: skip
        ingested = ingestor(sample)
        assert isinstance(ingested, IngestedSample)
        rows.append(writer.add(ingested))
    writer.close()
    return pd.DataFrame(rows), tmp_path / "shards"


def audit(manifest: pd.DataFrame, shards: Path, *, sampled: int = 100) -> pd.DataFrame:
    suspects = pd.DataFrame({"id": ["3", "3", "5"], "caption": [0, 1, 0]})
    return audit_manifest(manifest, shards, suspects, sampled_shards=sampled, max_pixels=10_000)


def test_lists_become_counts(stored: tuple[pd.DataFrame, Path]) -> None:
    audited = audit(*stored)
    assert set(audited["captions"]) == set(audited["flags"]) == set(audited["words"]) == {2}
    assert list(audited["wrong"]) == [0, 0, 1, *[0] * 15]
    assert list(audited["suspected"][:6]) == [0, 0, 0, 2, 0, 1]
    assert audited["wrong_held_out"].sum() == audited["blank"].sum() == 0


def test_repeats_leaks_and_look_alikes_agree_with_a_slow_search(stored: tuple[pd.DataFrame, Path]) -> None:
    manifest, shards = stored
    rng = np.random.default_rng(0)
    manifest["pixel_hash"] = [f"{n:032x}" for n in rng.integers(0, 12, 18)]
    manifest["dhash"] = [f"{n:016x}" for n in rng.integers(0, 64, 18)]  # six bits, so that many look alike
    audited = audit(manifest, shards)
    rows = manifest.to_dict("records")
    train = [row for row in rows if row["split"] == "train"]
    for i, row in enumerate(rows):
        before = [(other["split"], other["pixel_hash"]) for other in rows[:i]]
        assert audited["repeats"][i] == ((row["split"], row["pixel_hash"]) in before)
        if row["split"] == "train":
            assert pd.isna(audited["leaks"][i])
            assert pd.isna(audited["alike"][i])
        else:
            assert audited["leaks"][i] == any(row["pixel_hash"] == other["pixel_hash"] for other in train)
            bits = [(int(row["dhash"], 16) ^ int(other["dhash"], 16)).bit_count() for other in train]
            assert audited["alike"][i] == (min(bits) <= MAX_ALIKE_BITS)
    assert 0 < audited["repeats"].sum() < 18
    assert 0 < audited["leaks"].sum() < 12
    assert 0 < audited["alike"].sum() <= 12


def test_without_val_and_test_nothing_leaks(stored: tuple[pd.DataFrame, Path]) -> None:
    manifest, shards = stored
    assert audit(manifest[:6], shards)["leaks"].isna().all()


@pytest.mark.parametrize("sampled", [1, 2, 5, 6, 50])
def test_as_many_shards_are_opened_as_requested(stored: tuple[pd.DataFrame, Path], sampled: int) -> None:
    table = audit(*stored, sampled=sampled)
    opened = table.loc[table["opened"].notna(), "shard"].unique()
    assert len(opened) == min(sampled, 6)
    assert set(table["opened"].dropna()) == {INTACT}


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
    opened = list(audit(manifest, shards).loc[manifest["shard"] == "val/image-00001.tar", "opened"])
    for verdict, message in zip(opened, [*expected, None, None], strict=False):
        assert (message or INTACT) in verdict
    assert sum(verdict != INTACT for verdict in opened) == sum(message is not None for message in expected)


@pytest.mark.parametrize("num_bytes", [0, 700, 2500])
def test_a_shard_that_is_cut_short_or_missing_is_reported_for_all_its_samples(
    stored: tuple[pd.DataFrame, Path], num_bytes: int
) -> None:
    manifest, shards = stored
    path = shards / "val/image-00001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:num_bytes]) if num_bytes else path.unlink()
    opened = audit(manifest, shards).loc[manifest["shard"] == "val/image-00001.tar", "opened"]
    assert (opened != INTACT).any()
    assert opened.notna().all()
