"""Queries and new samples against what the deployed encoders learnt from."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cots.config.drift import DriftConfig
from cots.config.params import Params
from cots.data.image_hashes import image_hashes
from cots.data.images import encode_jpeg
from cots.data.manifest import SCHEMA, read_manifest, write_table
from cots.data.samples import StoredSample
from cots.data.shards import shard_name, write_shard
from cots.models.dual_encoder import DualEncoder
from cots.monitoring.drift import DriftCheck, DriftMonitor, summary
from cots.monitoring.query_log import LoggedQueries
from tests.conftest import COLOURS

ROOT = Path(__file__).parents[2]
LIMITS = Params.load(ROOT / "params.yaml").drift.model_copy(
    update={"min_rows": 4, "permutations": 199, "max_outside": 0.3, "max_oov": 0.6}
)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> DualEncoder:
    return DualEncoder.load(tiny_model)


def asked(model: DualEncoder, texts: Sequence[str] = (), pictures: Sequence[Image.Image] = ()) -> LoggedQueries:
    return LoggedQueries(
        texts=tuple(texts),
        text_vectors=model.encode_texts(texts, batch_size=8),
        image_vectors=model.encode_images(pictures, batch_size=8),
        num_skipped={},
    )


def watched(
    model: DualEncoder,
    data: Path,
    log: LoggedQueries | None,
    *,
    learnt: Path | None = None,
    limits: DriftConfig = LIMITS,
) -> dict[str, DriftCheck]:
    manifest = read_manifest(data / "manifest.parquet")
    before = read_manifest(learnt / "manifest.parquet") if learnt else manifest
    found = DriftMonitor(model, learnt=before, manifest=manifest, shards=data / "shards", limits=limits)(log)
    return {one.of: one for one in found}


def against(checked: DriftCheck) -> list[str]:
    return [verdict.expectation for verdict in checked.verdicts if not verdict.success]


def records(manifest: Path) -> list[dict[str, object]]:
    return [dict(row) for row in pq.read_table(manifest).to_pylist()]


def with_samples(data: Path, to: Path, pictures: Sequence[Image.Image]) -> Path:
    """The data with one more shard of captioned pictures."""
    shutil.copytree(data, to)
    rows = records(data / "manifest.parquet")
    name, stored = shard_name("train", "image", 1), []
    for number, picture in enumerate(pictures):
        sample = StoredSample(
            key=f"8{number:08d}",
            id=f"new-{number}",
            captions=(captioned(number),),
            frames=(encode_jpeg(picture),),
        )
        stored.append(sample)
        pixels, alike = image_hashes(picture)
        own: dict[str, object] = {"key": sample.key, "id": sample.id, "split": "train", "media": "image", "shard": name}
        size = {"frames": 1, "width": picture.width, "height": picture.height, "bytes": len(sample.frames[0])}
        told = {"captions": sample.captions, "wrong": (False,), "pixel_hash": pixels, "dhash": alike, "origin": "new"}
        rows.append(own | size | told)
    write_shard(to / "shards" / name, stored)
    write_table(to / "manifest.parquet", rows, SCHEMA)
    return to


def captioned(number: int) -> str:
    """As held-out samples are captioned: an encoder, whatever its weights, must not tell these from those."""
    colour, split, media = COLOURS[number % 6], ("val", "test")[number % 2], ("image", "image", "video")[number % 3]
    return f"a {colour} square in {split}" if number // 6 % 2 else f"one {colour} & <plain> {media}"


def square(colour: str, shade: int = 0) -> Image.Image:
    return Image.new("RGB", (40, 32), colour).point(lambda value: min(value + shade, 255))


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 40, 3), dtype=np.uint8))


def test_queries_that_read_like_held_out_captions_are_no_drift(model: DualEncoder, tiny_data: Path) -> None:
    texts = [captioned(number) for number in range(12)]
    found = watched(model, tiny_data, asked(model, texts, [square(colour) for colour in COLOURS]))
    assert against(found["queries, texts"]) == []
    assert against(found["queries, pictures"]) == []
    assert found["queries, texts"].rows == 12


def test_queries_in_other_words_are_drift_of_words_and_vectors(model: DualEncoder, tiny_data: Path) -> None:
    texts = [f"{verb} {noun}" for verb in ("buy", "sell", "rent", "lend") for noun in ("shoes", "boats", "cars")]
    texts = [f"{text} for a very low price near the old town hall" for text in texts]
    found = watched(model, tiny_data, asked(model, texts))
    assert {"words are known", "vectors lie where held-out ones lie"} <= set(against(found["queries, texts"]))


def test_pictures_of_another_kind_are_drift(model: DualEncoder, tiny_data: Path) -> None:
    found = watched(model, tiny_data, asked(model, pictures=[noise(seed) for seed in range(24)]))
    assert against(found["queries, pictures"]) == ["vectors lie where held-out ones lie"]
    assert found["queries, texts"].skipped_reason == "0 of the 4 that are needed"


def test_a_difference_below_the_stated_one_is_no_drift_however_certain(model: DualEncoder, tiny_data: Path) -> None:
    log = asked(model, pictures=[noise(seed) for seed in range(24)])
    found = watched(model, tiny_data, log, limits=LIMITS.model_copy(update={"min_mmd2": 2.0}))
    assert against(found["queries, pictures"]) == []
    test = found["queries, pictures"].test
    assert test
    assert test.p == 1 / 200


def test_data_that_did_not_change_have_nothing_new(model: DualEncoder, tiny_data: Path) -> None:
    found = watched(model, tiny_data, None)
    assert list(found) == ["new samples, captions", "new samples, sizes", "all samples, splits"]
    assert [one.skipped_reason[:2] for one in found.values()] == ["0 ", "0 ", ""]
    assert against(found["all samples, splits"]) == []


def test_new_samples_like_the_old_ones_are_no_drift(model: DualEncoder, tiny_data: Path, tmp_path: Path) -> None:
    data = with_samples(tiny_data, tmp_path / "data", [square(colour, shade=3) for colour in COLOURS * 2])
    found = watched(model, data, None, learnt=tiny_data, limits=LIMITS.model_copy(update={"max_shift": 0.4}))
    assert {one.rows for of, one in found.items() if of.startswith("new")} == {12}
    assert [against(one) for one in found.values()] == [[], [], [], []]


def test_new_samples_of_another_size_and_kind_are_drift(model: DualEncoder, tiny_data: Path, tmp_path: Path) -> None:
    data = with_samples(tiny_data, tmp_path / "data", [noise(seed).resize((400, 320)) for seed in range(24)])
    found = watched(model, data, None, learnt=tiny_data)
    assert against(found["new samples, sizes"]) == [
        "width as usual",
        "height as usual",
        "the share of image is as before",
        "the share of video is as before",
    ]
    assert against(found["new samples, images"]) == ["vectors lie where held-out ones lie"]
    assert "the share of train is as before" in against(found["all samples, splits"])


def test_a_picture_that_was_replaced_under_its_id_is_new(model: DualEncoder, tiny_data: Path, tmp_path: Path) -> None:
    before = with_samples(tiny_data, tmp_path / "before", [square(colour) for colour in COLOURS * 4])
    after = with_samples(tiny_data, tmp_path / "after", [noise(seed) for seed in range(24)])
    found = watched(model, after, None, learnt=before)
    assert found["new samples, images"].rows == 24
    assert against(found["new samples, images"]) == ["vectors lie where held-out ones lie"]


def test_held_out_samples_that_are_gone_are_told(model: DualEncoder, tiny_data: Path, tmp_path: Path) -> None:
    learnt = tmp_path / "learnt"
    learnt.mkdir()
    rows = pd.read_parquet(tiny_data / "manifest.parquet")
    rows[rows["split"] == "train"].to_parquet(learnt / "manifest.parquet")
    found = watched(model, tiny_data, asked(model, ["a", "b", "c", "d"]), learnt=learnt)
    assert (
        found["queries, texts"].skipped_reason
        == "the champion's data hold 0 held-out captions of the 4 that are needed"
    )


def test_the_summary_is_the_same_twice_and_ready_for_json(model: DualEncoder, tiny_data: Path, tmp_path: Path) -> None:
    data = with_samples(tiny_data, tmp_path / "data", [noise(seed) for seed in range(24)])
    log = asked(model, [f"a {colour} square" for colour in COLOURS], [square(colour) for colour in COLOURS])
    once, again = (
        json.dumps(summary(list(watched(model, data, log, learnt=tiny_data).values()), data="x")) for _ in range(2)
    )
    assert once == again
    told = json.loads(once)
    assert told["drifted"] is True
    assert any(reason.startswith("new samples, images: vectors lie where") for reason in told["reasons"])
    assert told["vectors"]["queries, texts"].keys() == {"mmd2", "p", "bandwidth"}
