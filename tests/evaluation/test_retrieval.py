"""Embedding and measuring of stored and of foreign samples, with a real model of random weights."""

import dataclasses
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cots.data.ingest.by_media import ingest_by_media
from cots.data.ingest.ingestor import Ingestor
from cots.data.manifest import read_manifest, select_part
from cots.data.samples import Sample
from cots.data.stored_samples import decode_frames, read_stored_by_id, read_stored_samples
from cots.directions import Media
from cots.errors import BadInput
from cots.evaluation.embedding import EmbeddedSplit, embed
from cots.evaluation.retrieval import evaluate_retrieval, query_rows
from cots.models.dual_encoder import DualEncoder


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> DualEncoder:
    return DualEncoder.load(tiny_model)


@pytest.fixture(scope="module")
def manifest(tiny_data: Path) -> pd.DataFrame:
    return read_manifest(tiny_data / "manifest.parquet")


@pytest.fixture(scope="module")
def embedded(model: DualEncoder, tiny_data: Path, manifest: pd.DataFrame) -> EmbeddedSplit:
    return embed(model, read_stored_samples(tiny_data / "shards", select_part(manifest, "test", "image")), batch_size=4)


def foreign(name: str, content: Path | bytes | tuple[bytes, ...], *captions: str) -> Sample:
    media: Media = "video" if isinstance(content, tuple) else "image"
    wrong = (False,) * len(captions)
    return Sample(
        id=name, split="test", media=media, captions=captions, is_mismatched=wrong, content=content, origin=name
    )


def png(colour: str, size: tuple[int, int] = (40, 32)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def intake(root: Path) -> Ingestor:
    return Ingestor(root=root, withdrawn={}, size=32, max_frames=4, min_side=8, max_pixels=10_000, max_caption_chars=50)


def test_stored_samples_come_in_the_order_of_the_manifest(tiny_data: Path, manifest: pd.DataFrame) -> None:
    rows = manifest[manifest["split"].isin(["train", "test"])]
    assert [sample.id for sample in read_stored_samples(tiny_data / "shards", rows)] == rows["id"].tolist()


def test_a_split_without_clips_has_no_samples(tiny_data: Path, manifest: pd.DataFrame) -> None:
    pictures = manifest[manifest["media"] == "image"]
    assert list(read_stored_samples(tiny_data / "shards", select_part(pictures, "test", "video"))) == []


def test_a_shard_that_is_not_the_manifests_is_refused(tiny_data: Path, manifest: pd.DataFrame) -> None:
    rows = select_part(manifest, "test", "image").iloc[1:]
    with pytest.raises(BadInput, match=r"test/image-00000\.tar does not hold what the manifest says"):
        list(read_stored_samples(tiny_data / "shards", rows))


def test_samples_are_found_by_id_without_reading_other_shards(
    tiny_data: Path, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    shutil.copytree(tiny_data / "shards" / "val", tmp_path / "val")
    found = read_stored_by_id(tmp_path, manifest, ["val-image-blue", "val-video-red"])
    assert {name: len(sample.frames) for name, sample in found.items()} == {"val-image-blue": 1, "val-video-red": 3}


def test_a_damaged_frame_is_named(tiny_data: Path, manifest: pd.DataFrame) -> None:
    sample = next(read_stored_samples(tiny_data / "shards", manifest))
    with pytest.raises(BadInput, match=f"a stored frame of {sample.id} is damaged"):
        decode_frames(dataclasses.replace(sample, frames=(sample.frames[0][:100],)))


def test_every_caption_belongs_to_its_picture(embedded: EmbeddedSplit, model: DualEncoder) -> None:
    assert embedded.text_to_item.tolist() == np.repeat(np.arange(6), 2).tolist()
    for caption, owner in zip(embedded.captions, embedded.text_to_item, strict=True):
        assert embedded.ids[owner].rsplit("-", 1)[-1] in caption
    row = embedded.captions.index("a blue square in test")
    alone = model.encode_texts(["a blue square in test"], batch_size=1)[0]
    np.testing.assert_allclose(embedded.texts[row], alone, atol=0.02)  # bfloat16, padded otherwise


@pytest.mark.parametrize("media", ["image", "video"])
def test_the_batch_size_changes_no_vector(
    model: DualEncoder, tiny_data: Path, manifest: pd.DataFrame, media: str
) -> None:
    rows = select_part(manifest, "test", media)
    one, many = (embed(model, read_stored_samples(tiny_data / "shards", rows), batch_size=size) for size in (1, 64))
    np.testing.assert_allclose(one.items, many.items, atol=0.02)
    assert one.ids == many.ids


def test_vectors_are_unit_rows_and_times_are_positive(embedded: EmbeddedSplit) -> None:
    for rows in (embedded.items, embedded.texts):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    assert embedded.item_seconds > 0
    assert embedded.text_seconds > 0


def test_nothing_to_embed_is_told(model: DualEncoder) -> None:
    with pytest.raises(BadInput, match="nothing to embed"):
        embed(model, [], batch_size=4)


SCORES = {"R@1", "R@5", "R@10", "mAP@R", "MdR", "mean_rank"}


def test_metrics_are_json_and_named_by_direction(embedded: EmbeddedSplit) -> None:
    kinds: dict[Media, tuple[str, str]] = {"image": ("i2t", "t2i"), "video": ("v2t", "t2v")}
    for media, names in kinds.items():
        metrics = evaluate_retrieval(embedded, media=media, folds=1, resamples=20, seed=0).metrics
        assert json.loads(json.dumps(metrics)) == metrics
        assert set(metrics) == {*names, "rsum", "chance", "interval", "queries", "speed"}
        assert metrics["queries"] == {"items": 6, "texts": 12}
        for name in names:
            assert set(metrics[name]) == set(metrics["chance"][name]) == set(metrics["interval"][name]) == SCORES
            for score in SCORES:
                assert metrics["interval"][name][score]["low"] <= metrics["interval"][name][score]["high"]


def test_folds_stand_beside_the_whole_in_the_same_form(embedded: EmbeddedSplit) -> None:
    whole, both = (
        evaluate_retrieval(embedded, media="image", folds=folds, resamples=20, seed=0).metrics for folds in (1, 3)
    )
    folds = both.pop("folds")
    assert {name: both[name] for name in both if name != "speed"} == {n: whole[n] for n in whole if n != "speed"}
    assert folds.pop("number") == 3
    assert set(folds) == set(whole) - {"speed"}
    assert folds["queries"] == {"items": 2, "texts": 4}
    assert folds["chance"]["t2i"]["R@1"] == 50
    parts = [np.s_[start : start + 2] for start in (0, 2, 4)]
    alone = [
        evaluate_retrieval(
            dataclasses.replace(
                embedded,
                ids=embedded.ids[part],
                captions=embedded.captions[2 * part.start : 2 * part.stop],
                text_to_item=np.array([0, 0, 1, 1]),
                items=embedded.items[part],
                texts=embedded.texts[2 * part.start : 2 * part.stop],
            ),
            media="image",
            folds=1,
            resamples=1,
            seed=0,
        ).metrics
        for part in parts
    ]
    assert folds["rsum"] == pytest.approx(np.mean([one["rsum"] for one in alone]), abs=1e-5)
    for way in ("i2t", "t2i"):
        for score in SCORES:
            assert folds[way][score] == pytest.approx(np.mean([one[way][score] for one in alone]), abs=1e-5)


def test_more_folds_than_items_are_told_in_one_line(embedded: EmbeddedSplit) -> None:
    with pytest.raises(BadInput, match="7 folds of 6 items: set evaluate.folds or --folds to fewer"):
        evaluate_retrieval(embedded, media="image", folds=7, resamples=1, seed=0)


def test_metrics_follow_from_the_ranks(embedded: EmbeddedSplit) -> None:
    measured = evaluate_retrieval(embedded, media="image", folds=1, resamples=5, seed=0)
    rows = pd.DataFrame(query_rows(embedded, measured))
    for name in ("i2t", "t2i"):
        ranks = rows.loc[rows["direction"] == name, "rank"]
        assert measured.metrics[name]["R@5"] == pytest.approx(100 * (ranks <= 5).mean(), abs=1e-6)
        assert measured.metrics[name]["MdR"] == ranks.median()
        precision = rows.loc[rows["direction"] == name, "average_precision"]
        assert measured.metrics[name]["mAP@R"] == pytest.approx(100 * precision.mean(), abs=1e-6)


def test_queries_are_told_apart_by_picture_and_caption(embedded: EmbeddedSplit) -> None:
    rows = pd.DataFrame(query_rows(embedded, evaluate_retrieval(embedded, media="image", folds=1, resamples=2, seed=0)))
    assert len(rows) == 6 + 12
    assert not rows.duplicated(["direction", "query"]).any()
    asked = rows[rows["direction"] == "t2i"]
    assert asked["query"].tolist()[:3] == ["test-image-red#0", "test-image-red#1", "test-image-green#0"]
    assert rows.loc[rows["direction"] == "i2t", ["relevant", "candidates"]].drop_duplicates().values.tolist() == [
        [2, 12]
    ]


def test_a_model_that_knows_every_caption_scores_full_marks(embedded: EmbeddedSplit) -> None:
    knowing = dataclasses.replace(
        embedded, items=np.eye(6, dtype=np.float32), texts=np.eye(6, dtype=np.float32)[embedded.text_to_item]
    )
    metrics = evaluate_retrieval(knowing, media="image", folds=1, resamples=5, seed=0).metrics
    assert metrics["rsum"] == 600
    assert metrics["interval"]["rsum"] == {"low": 600, "high": 600}


def test_foreign_samples_come_by_media_without_those_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")

    def samples() -> Iterator[Sample]:
        yield foreign("good", png("red"), "a red square", "  ", "x" * 51)
        yield foreign("text", tmp_path / "text.jpg", "a square")
        yield foreign("absent", tmp_path / "absent.jpg", "a square")
        yield foreign("small", png("red", (40, 4)), "a square")
        yield foreign("large", png("red", (400, 400)), "a square")
        yield foreign("silent", png("blue"), " ")
        yield foreign("good", png("blue"), "twice")
        yield foreign("clip", (png("red"), png("blue")), "a clip")
        yield foreign("blue", png("blue"), "a blue square")

    usable, refused = ingest_by_media(samples(), intake(tmp_path))
    assert [sample.id for sample in usable["image"]] == ["good", "blue"]
    assert [(sample.id, len(sample.frames)) for sample in usable["video"]] == [("clip", 2)]
    assert usable["image"][0].captions == ("a red square",)
    assert Counter(reject.reason for reject in refused) == {
        "not a picture": 1,
        "no such file": 1,
        "too small": 1,
        "too many pixels": 1,
        "no caption": 1,
        "duplicate id": 1,
    }


def test_foreign_pictures_are_encoded_as_stored_ones_are(
    model: DualEncoder, embedded: EmbeddedSplit, tmp_path: Path
) -> None:
    usable, _ = ingest_by_media(iter([foreign("a", png("red"), "a red square in test")]), intake(tmp_path))
    np.testing.assert_allclose(embed(model, usable["image"], batch_size=2).items[0], embedded.items[0], atol=0.05)
