from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cots.data.ingest.ingestor import IngestedSample, Ingestor
from cots.data.ingest.shard_writer import ShardWriter
from cots.data.quality.audit import ALIKE_BITS, SOUND, audit_manifest
from cots.data.samples import SPLITS, Sample, StoredSample
from cots.data.shards import read_shard, write_shard

Encoded = Callable[..., bytes]


@pytest.fixture
def stored(tmp_path: Path, picture: Encoded) -> tuple[pd.DataFrame, Path]:
    """A manifest of eighteen pictures, six a split, and its shards of three samples."""
    intake = Ingestor(
        root=tmp_path, withdrawn={}, size=32, frames=1, min_side=8, max_pixels=10_000, max_caption_chars=50
    )
    folder = ShardWriter(tmp_path / "shards", samples_per_shard=3)
    rows = []
    for number in range(18):
        split = SPLITS[number // 6]
        texts, data = (f"caption {number}", "more"), picture(seed=number)
        sample = Sample(id=f"{number}", split=split, media="image", captions=texts, is_mismatched=(False, number == 2),
                        content=data, origin="here")  # fmt: skip
        taken = intake(sample)
        assert isinstance(taken, IngestedSample)
        rows.append(folder.add(taken))
    folder.close()
    return pd.DataFrame(rows), tmp_path / "shards"


def figures(manifest: pd.DataFrame, shards: Path, *, sampled: int = 100) -> pd.DataFrame:
    suspects = pd.DataFrame({"id": ["3", "3", "5"], "caption": [0, 1, 0]})
    return audit_manifest(manifest, shards, suspects, sampled_shards=sampled, max_pixels=10_000)


def test_lists_become_figures(stored: tuple[pd.DataFrame, Path]) -> None:
    found = figures(*stored)
    assert set(found["captions"]) == set(found["flags"]) == set(found["words"]) == {2}
    assert list(found["wrong"]) == [0, 0, 1, *[0] * 15]
    assert list(found["suspected"][:6]) == [0, 0, 0, 2, 0, 1]
    assert found["wrong_held_out"].sum() == found["blank"].sum() == 0


def test_repeats_leaks_and_likenesses_are_those_that_a_slow_search_finds(stored: tuple[pd.DataFrame, Path]) -> None:
    manifest, shards = stored
    rng = np.random.default_rng(0)
    manifest["pixel_hash"] = [f"{n:032x}" for n in rng.integers(0, 12, 18)]
    manifest["dhash"] = [f"{n:016x}" for n in rng.integers(0, 64, 18)]  # six bits, so that many are near
    found = figures(manifest, shards)
    rows = manifest.to_dict("records")
    train = [row for row in rows if row["split"] == "train"]
    for i, row in enumerate(rows):
        before = [(other["split"], other["pixel_hash"]) for other in rows[:i]]
        assert found["repeats"][i] == ((row["split"], row["pixel_hash"]) in before)
        if row["split"] == "train":
            assert pd.isna(found["leaks"][i])
            assert pd.isna(found["alike"][i])
        else:
            assert found["leaks"][i] == any(row["pixel_hash"] == other["pixel_hash"] for other in train)
            bits = [(int(row["dhash"], 16) ^ int(other["dhash"], 16)).bit_count() for other in train]
            assert found["alike"][i] == (min(bits) <= ALIKE_BITS)
    assert 0 < found["repeats"].sum() < 18
    assert 0 < found["leaks"].sum() < 12
    assert 0 < found["alike"].sum() <= 12


def test_without_val_and_test_nothing_leaks(stored: tuple[pd.DataFrame, Path]) -> None:
    manifest, shards = stored
    assert figures(manifest[:6], shards)["leaks"].isna().all()


@pytest.mark.parametrize("sampled", [1, 2, 5, 6, 50])
def test_as_many_shards_are_opened_as_asked_for(stored: tuple[pd.DataFrame, Path], sampled: int) -> None:
    found = figures(*stored, sampled=sampled)
    opened = found.loc[found["opened"].notna(), "shard"].unique()
    assert len(opened) == min(sampled, 6)
    assert set(found["opened"].dropna()) == {SOUND}


def recaptioned(samples: list[StoredSample], picture: Encoded) -> list[StoredSample]:
    return [samples[0], replace(samples[1], captions=("other",)), samples[2]]


def repainted(samples: list[StoredSample], picture: Encoded) -> list[StoredSample]:
    return [samples[0], replace(samples[1], frames=(picture(seed=99),)), samples[2]]


def multiplied(samples: list[StoredSample], picture: Encoded) -> list[StoredSample]:
    return [samples[0], replace(samples[1], frames=samples[1].frames * 2), samples[2]]


def cut(samples: list[StoredSample], picture: Encoded) -> list[StoredSample]:
    return [samples[0], replace(samples[1], frames=(samples[1].frames[0][:300],)), samples[2]]


def dropped(samples: list[StoredSample], picture: Encoded) -> list[StoredSample]:
    return samples[:2]


def added(samples: list[StoredSample], picture: Encoded) -> list[StoredSample]:
    return [*samples, replace(samples[0], key="000000099")]


def reversed_(samples: list[StoredSample], picture: Encoded) -> list[StoredSample]:
    return samples[::-1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (recaptioned, [None, "another captions in"]),
        (repainted, [None, "other pixels in"]),
        (multiplied, [None, "another frames in"]),
        (cut, [None, "a frame in"]),
        (dropped, [None, None, "missing in"]),
        (added, ["holds 1 samples more"] * 3),
        (reversed_, ["another key and id and captions in", None, "another key and id"]),
    ],
)
def test_what_a_shard_holds_otherwise_is_told_of_the_sample_that_it_concerns(
    stored: tuple[pd.DataFrame, Path], picture: Encoded, change: Callable[..., list[StoredSample]], told: list[Any]
) -> None:
    manifest, shards = stored
    path = shards / "val/image-00001.tar"
    write_shard(path, change(list(read_shard(path)), picture))
    found = list(figures(manifest, shards).loc[manifest["shard"] == "val/image-00001.tar", "opened"])
    for verdict, expected in zip(found, [*told, None, None], strict=False):
        assert (expected or SOUND) in verdict
    assert sum(verdict != SOUND for verdict in found) == sum(expected is not None for expected in told)


@pytest.mark.parametrize("left", [0, 700, 2500])
def test_a_shard_cut_short_or_gone_is_told_of_all_its_samples(stored: tuple[pd.DataFrame, Path], left: int) -> None:
    manifest, shards = stored
    path = shards / "val/image-00001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:left]) if left else path.unlink()
    found = figures(manifest, shards).loc[manifest["shard"] == "val/image-00001.tar", "opened"]
    assert (found != SOUND).any()
    assert found.notna().all()
