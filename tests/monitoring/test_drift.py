"""Queries and new samples against the data that the deployed encoders were trained on."""

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
from cots.monitoring.drift import DriftCheck, DriftMonitor, summarize_checks
from cots.monitoring.query_log import LoggedQueries
from tests.conftest import COLOURS

ROOT = Path(__file__).parents[2]
LIMITS = Params.load(ROOT / "params.yaml").drift.model_copy(
    update={"min_rows": 4, "permutations": 199, "max_outside": 0.3, "max_oov": 0.6}
)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> DualEncoder:
    return DualEncoder.load(tiny_model)


def log_of(model: DualEncoder, texts: Sequence[str] = (), images: Sequence[Image.Image] = ()) -> LoggedQueries:
    return LoggedQueries(
        texts=tuple(texts),
        text_vectors=model.encode_texts(texts, batch_size=8),
        image_vectors=model.encode_images(images, batch_size=8),
        num_skipped={},
    )


def run_checks(
    model: DualEncoder,
    data: Path,
    log: LoggedQueries | None,
    *,
    trained_on: Path | None = None,
    limits: DriftConfig = LIMITS,
) -> dict[str, DriftCheck]:
    manifest = read_manifest(data / "manifest.parquet")
    training_manifest = read_manifest(trained_on / "manifest.parquet") if trained_on else manifest
    monitor = DriftMonitor(
        model, training_manifest=training_manifest, manifest=manifest, shards=data / "shards", limits=limits
    )
    return {check.name: check for check in monitor(log)}


def unmet(check: DriftCheck) -> list[str]:
    return [result.expectation for result in check.results if not result.success]


def records(manifest: Path) -> list[dict[str, object]]:
    return [dict(row) for row in pq.read_table(manifest).to_pylist()]


def with_samples(data: Path, to: Path, images: Sequence[Image.Image]) -> Path:
    """The data with one more shard of captioned images."""
    shutil.copytree(data, to)
    rows = records(data / "manifest.parquet")
    name, stored = shard_name("train", "image", 1), []
    for number, image in enumerate(images):
        sample = StoredSample(
            key=f"8{number:08d}",
            id=f"new-{number}",
            captions=(caption(number),),
            frames=(encode_jpeg(image),),
        )
        stored.append(sample)
        pixel_hash, dhash = image_hashes(image)
        row: dict[str, object] = {"key": sample.key, "id": sample.id, "split": "train", "media": "image", "shard": name}
        row |= {"frames": 1, "width": image.width, "height": image.height, "bytes": len(sample.frames[0])}
        row |= {"captions": sample.captions, "wrong": (False,), "pixel_hash": pixel_hash, "dhash": dhash}
        rows.append(row | {"origin": "new"})
    write_shard(to / "shards" / name, stored)
    write_table(to / "manifest.parquet", rows, SCHEMA)
    return to


def caption(number: int) -> str:
    """A caption like those of held-out samples, so that encoders of any weights find no difference."""
    colour, split, media = COLOURS[number % 6], ("val", "test")[number % 2], ("image", "image", "video")[number % 3]
    return f"a {colour} square in {split}" if number // 6 % 2 else f"one {colour} & <plain> {media}"


def square(colour: str, shade: int = 0) -> Image.Image:
    return Image.new("RGB", (40, 32), colour).point(lambda value: min(value + shade, 255))


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 40, 3), dtype=np.uint8))


def test_queries_like_held_out_captions_have_not_drifted(model: DualEncoder, tiny_data: Path) -> None:
    texts = [caption(number) for number in range(12)]
    checks = run_checks(model, tiny_data, log_of(model, texts, [square(colour) for colour in COLOURS]))
    assert unmet(checks["queries, texts"]) == []
    assert unmet(checks["queries, pictures"]) == []
    assert checks["queries, texts"].num_rows == 12


def test_queries_in_other_words_have_drifted(model: DualEncoder, tiny_data: Path) -> None:
    texts = [f"{verb} {noun}" for verb in ("buy", "sell", "rent", "lend") for noun in ("shoes", "boats", "cars")]
    texts = [f"{text} for a very low price near the old town hall" for text in texts]
    checks = run_checks(model, tiny_data, log_of(model, texts))
    assert {"words are known", "embeddings are distributed like held-out ones"} <= set(unmet(checks["queries, texts"]))


def test_images_of_another_kind_have_drifted(model: DualEncoder, tiny_data: Path) -> None:
    checks = run_checks(model, tiny_data, log_of(model, images=[noise(seed) for seed in range(24)]))
    assert unmet(checks["queries, pictures"]) == ["embeddings are distributed like held-out ones"]
    assert checks["queries, texts"].skipped_reason == "only 0 rows, 4 are needed"


def test_a_significant_difference_below_the_minimum_is_not_drift(model: DualEncoder, tiny_data: Path) -> None:
    log = log_of(model, images=[noise(seed) for seed in range(24)])
    checks = run_checks(model, tiny_data, log, limits=LIMITS.model_copy(update={"min_mmd2": 2.0}))
    assert unmet(checks["queries, pictures"]) == []
    test = checks["queries, pictures"].test
    assert test
    assert test.p == 1 / 200


def test_unchanged_data_has_no_new_samples(model: DualEncoder, tiny_data: Path) -> None:
    checks = run_checks(model, tiny_data, None)
    assert list(checks) == ["new samples, captions", "new samples, sizes", "all samples, splits"]
    assert [check.skipped_reason[:6] for check in checks.values()] == ["only 0", "only 0", ""]
    assert unmet(checks["all samples, splits"]) == []


def test_new_samples_like_the_old_ones_have_not_drifted(model: DualEncoder, tiny_data: Path, tmp_path: Path) -> None:
    data = with_samples(tiny_data, tmp_path / "data", [square(colour, shade=3) for colour in COLOURS * 2])
    checks = run_checks(model, data, None, trained_on=tiny_data, limits=LIMITS.model_copy(update={"max_shift": 0.4}))
    assert {check.num_rows for name, check in checks.items() if name.startswith("new")} == {12}
    assert [unmet(check) for check in checks.values()] == [[], [], [], []]


def test_captions_as_long_as_those_trained_on_are_as_usual_where_held_out_ones_are_longer(
    model: DualEncoder, tiny_data: Path, tmp_path: Path
) -> None:
    data = with_samples(tiny_data, tmp_path / "data", [square(colour) for colour in COLOURS])
    rows = records(data / "manifest.parquet")
    for row in rows:
        if row["split"] == "train":
            row |= {"captions": ("a box",), "wrong": (False,)}
    write_table(data / "manifest.parquet", rows, SCHEMA)
    (tmp_path / "before").mkdir()
    before = [row for row in rows if not str(row["id"]).startswith("new-")]
    write_table(tmp_path / "before/manifest.parquet", before, SCHEMA)
    check = run_checks(model, data, None, trained_on=tmp_path / "before")["new samples, captions"]
    assert check.num_rows == len(COLOURS)
    assert not {"words as usual", "characters as usual"} & set(unmet(check))


def test_new_samples_of_another_size_and_kind_have_drifted(model: DualEncoder, tiny_data: Path, tmp_path: Path) -> None:
    data = with_samples(tiny_data, tmp_path / "data", [noise(seed).resize((400, 320)) for seed in range(24)])
    checks = run_checks(model, data, None, trained_on=tiny_data)
    assert unmet(checks["new samples, sizes"]) == [
        "width as usual",
        "height as usual",
        "the fraction of image is as before",
        "the fraction of video is as before",
    ]
    assert unmet(checks["new samples, images"]) == ["embeddings are distributed like held-out ones"]
    assert "the fraction of train is as before" in unmet(checks["all samples, splits"])


def test_an_image_that_was_replaced_under_its_id_is_new(model: DualEncoder, tiny_data: Path, tmp_path: Path) -> None:
    before = with_samples(tiny_data, tmp_path / "before", [square(colour) for colour in COLOURS * 4])
    after = with_samples(tiny_data, tmp_path / "after", [noise(seed) for seed in range(24)])
    checks = run_checks(model, after, None, trained_on=before)
    assert checks["new samples, images"].num_rows == 24
    assert unmet(checks["new samples, images"]) == ["embeddings are distributed like held-out ones"]


def test_missing_held_out_samples_skip_the_check(model: DualEncoder, tiny_data: Path, tmp_path: Path) -> None:
    trained_on = tmp_path / "trained-on"
    trained_on.mkdir()
    rows = pd.read_parquet(tiny_data / "manifest.parquet")
    rows[rows["split"] == "train"].to_parquet(trained_on / "manifest.parquet")
    checks = run_checks(model, tiny_data, log_of(model, ["a", "b", "c", "d"]), trained_on=trained_on)
    assert checks["queries, texts"].skipped_reason == "the champion's data has only 0 held-out captions, 4 are needed"


def test_the_summary_is_reproducible_json(model: DualEncoder, tiny_data: Path, tmp_path: Path) -> None:
    data = with_samples(tiny_data, tmp_path / "data", [noise(seed) for seed in range(24)])
    log = log_of(model, [f"a {colour} square" for colour in COLOURS], [square(colour) for colour in COLOURS])
    first, second = (
        json.dumps(summarize_checks(list(run_checks(model, data, log, trained_on=tiny_data).values()), data="x"))
        for _ in range(2)
    )
    assert first == second
    summary = json.loads(first)
    assert summary["drifted"] is True
    assert any(reason.startswith("new samples, images: embeddings are") for reason in summary["reasons"])
    assert summary["vectors"]["queries, texts"].keys() == {"mmd2", "p", "bandwidth"}
