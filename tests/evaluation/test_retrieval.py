"""Embedding and evaluation of stored and of foreign samples, with a real model of random weights."""

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


def build_ingestor(root: Path) -> Ingestor:
    return Ingestor(
        root=root,
        withdrawn={},
        size=32,
        max_frames=4,
        min_side=8,
        max_pixels=10_000,
        max_bytes=10**6,
        max_seconds=60,
        max_caption_chars=50,
    )


def test_stored_samples_are_read_in_the_order_of_the_manifest(tiny_data: Path, manifest: pd.DataFrame) -> None:
    rows = manifest[manifest["split"].isin(["train", "test"])]
    assert [sample.id for sample in read_stored_samples(tiny_data / "shards", rows)] == rows["id"].tolist()


def test_a_split_without_videos_has_no_samples(tiny_data: Path, manifest: pd.DataFrame) -> None:
    images = manifest[manifest["media"] == "image"]
    assert list(read_stored_samples(tiny_data / "shards", select_part(images, "test", "video"))) == []


def test_a_shard_that_does_not_match_the_manifest_is_refused(tiny_data: Path, manifest: pd.DataFrame) -> None:
    rows = select_part(manifest, "test", "image").iloc[1:]
    with pytest.raises(BadInput, match=r"test/image-00000\.tar does not hold what the manifest says"):
        list(read_stored_samples(tiny_data / "shards", rows))


def test_samples_are_found_by_id_without_reading_other_shards(
    tiny_data: Path, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    shutil.copytree(tiny_data / "shards" / "val", tmp_path / "val")
    samples = read_stored_by_id(tmp_path, manifest, ["val-image-blue", "val-video-red"])
    assert {name: len(sample.frames) for name, sample in samples.items()} == {"val-image-blue": 1, "val-video-red": 3}


def test_a_damaged_frame_is_named(tiny_data: Path, manifest: pd.DataFrame) -> None:
    sample = next(read_stored_samples(tiny_data / "shards", manifest))
    bitmap = io.BytesIO()
    Image.new("RGB", (40, 32)).save(bitmap, "BMP")
    for damaged in (sample.frames[0][:100], sample.frames[0][:-200], bitmap.getvalue()):
        with pytest.raises(BadInput, match=f"a stored frame of {sample.id} is damaged"):
            decode_frames(dataclasses.replace(sample, frames=(damaged,)))


def test_every_caption_belongs_to_its_image(embedded: EmbeddedSplit, model: DualEncoder) -> None:
    assert embedded.text_to_item.tolist() == np.repeat(np.arange(6), 2).tolist()
    for caption, item in zip(embedded.captions, embedded.text_to_item, strict=True):
        assert embedded.ids[item].rsplit("-", 1)[-1] in caption
    row = embedded.captions.index("a blue square in test")
    expected = model.encode_texts(["a blue square in test"], batch_size=1)[0]
    np.testing.assert_allclose(embedded.texts[row], expected, atol=0.02)  # bfloat16, with other padding


@pytest.mark.parametrize("media", ["image", "video"])
def test_the_batch_size_changes_no_embedding(
    model: DualEncoder, tiny_data: Path, manifest: pd.DataFrame, media: str
) -> None:
    rows = select_part(manifest, "test", media)
    singly, together = (
        embed(model, read_stored_samples(tiny_data / "shards", rows), batch_size=size) for size in (1, 64)
    )
    np.testing.assert_allclose(singly.items, together.items, atol=0.02)
    assert singly.ids == together.ids


def test_embeddings_are_unit_rows_and_times_are_positive(embedded: EmbeddedSplit) -> None:
    for rows in (embedded.items, embedded.texts):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    assert embedded.item_seconds > 0
    assert embedded.text_seconds > 0


def test_nothing_to_embed_is_an_error(model: DualEncoder) -> None:
    with pytest.raises(BadInput, match="nothing to embed"):
        embed(model, [], batch_size=4)


SCORES = {"R@1", "R@5", "R@10", "mAP@R", "MdR", "mean_rank"}


def test_metrics_are_json_and_named_by_direction(embedded: EmbeddedSplit) -> None:
    directions: dict[Media, tuple[str, str]] = {"image": ("i2t", "t2i"), "video": ("v2t", "t2v")}
    for media, names in directions.items():
        metrics = evaluate_retrieval(embedded, media=media, folds=1, resamples=20, seed=0).metrics
        assert json.loads(json.dumps(metrics)) == metrics
        assert set(metrics) == {*names, "rsum", "chance", "interval", "queries", "speed"}
        assert metrics["queries"] == {"items": 6, "texts": 12}
        for name in names:
            assert set(metrics[name]) == set(metrics["chance"][name]) == set(metrics["interval"][name]) == SCORES
            for score in SCORES:
                assert metrics["interval"][name][score]["low"] <= metrics["interval"][name][score]["high"]


def test_metrics_of_folds_have_the_same_keys_as_those_of_the_whole_set(embedded: EmbeddedSplit) -> None:
    whole, both = (
        evaluate_retrieval(embedded, media="image", folds=folds, resamples=20, seed=0).metrics for folds in (1, 3)
    )
    folds = both.pop("folds")
    assert {name: both[name] for name in both if name != "speed"} == {n: whole[n] for n in whole if n != "speed"}
    assert folds.pop("number") == 3
    assert set(folds) == set(whole) - {"speed"}
    assert folds["queries"] == {"items": 2, "texts": 4}
    assert folds["chance"]["t2i"]["R@1"] == 50
    members = [np.s_[start : start + 2] for start in (0, 2, 4)]
    by_fold = [
        evaluate_retrieval(
            dataclasses.replace(
                embedded,
                ids=embedded.ids[fold],
                captions=embedded.captions[2 * fold.start : 2 * fold.stop],
                text_to_item=np.array([0, 0, 1, 1]),
                items=embedded.items[fold],
                texts=embedded.texts[2 * fold.start : 2 * fold.stop],
            ),
            media="image",
            folds=1,
            resamples=1,
            seed=0,
        ).metrics
        for fold in members
    ]
    assert folds["rsum"] == pytest.approx(np.mean([fold["rsum"] for fold in by_fold]), abs=1e-5)
    for direction in ("i2t", "t2i"):
        for score in SCORES:
            expected = np.mean([fold[direction][score] for fold in by_fold])
            assert folds[direction][score] == pytest.approx(expected, abs=1e-5)


def test_more_folds_than_items_are_refused_in_one_line(embedded: EmbeddedSplit) -> None:
    with pytest.raises(BadInput, match="7 folds of 6 items: set evaluate.folds or --folds to fewer"):
        evaluate_retrieval(embedded, media="image", folds=7, resamples=1, seed=0)


def test_metrics_follow_from_the_ranks(embedded: EmbeddedSplit) -> None:
    result = evaluate_retrieval(embedded, media="image", folds=1, resamples=5, seed=0)
    rows = pd.DataFrame(query_rows(embedded, result))
    for name in ("i2t", "t2i"):
        ranks = rows.loc[rows["direction"] == name, "rank"]
        assert result.metrics[name]["R@5"] == pytest.approx(100 * (ranks <= 5).mean(), abs=1e-6)
        assert result.metrics[name]["MdR"] == ranks.median()
        precision = rows.loc[rows["direction"] == name, "average_precision"]
        assert result.metrics[name]["mAP@R"] == pytest.approx(100 * precision.mean(), abs=1e-6)
    assert [min(ranks) for ranks in rows["right_ranks"]] == rows["rank"].tolist()
    assert [len(ranks) for ranks in rows["right_ranks"]] == rows["relevant"].tolist()


def test_queries_are_identified_by_image_and_caption(embedded: EmbeddedSplit) -> None:
    rows = pd.DataFrame(query_rows(embedded, evaluate_retrieval(embedded, media="image", folds=1, resamples=2, seed=0)))
    assert len(rows) == 6 + 12
    assert not rows.duplicated(["direction", "query"]).any()
    texts = rows[rows["direction"] == "t2i"]
    assert texts["query"].tolist()[:3] == ["test-image-red#0", "test-image-red#1", "test-image-green#0"]
    assert rows.loc[rows["direction"] == "i2t", ["relevant", "candidates"]].drop_duplicates().values.tolist() == [
        [2, 12]
    ]


def test_a_perfect_model_reaches_the_highest_scores(embedded: EmbeddedSplit) -> None:
    perfect = dataclasses.replace(
        embedded, items=np.eye(6, dtype=np.float32), texts=np.eye(6, dtype=np.float32)[embedded.text_to_item]
    )
    metrics = evaluate_retrieval(perfect, media="image", folds=1, resamples=5, seed=0).metrics
    assert metrics["rsum"] == 600
    assert metrics["interval"]["rsum"] == {"low": 600, "high": 600}


def test_foreign_samples_are_grouped_by_media_without_unusable_ones(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")

    def samples() -> Iterator[Sample]:
        yield foreign("good", png("red"), "a red square", "  ", "x" * 51)
        yield foreign("text", tmp_path / "text.jpg", "a square")
        yield foreign("absent", tmp_path / "absent.jpg", "a square")
        yield foreign("small", png("red", (40, 4)), "a square")
        yield foreign("large", png("red", (400, 400)), "a square")
        yield foreign("silent", png("blue"), " ")
        yield foreign("good", png("blue"), "twice")
        yield foreign("video", (png("red"), png("blue")), "a video")
        yield foreign("blue", png("blue"), "a blue square")

    usable, refused = ingest_by_media(samples(), build_ingestor(tmp_path))
    assert [sample.id for sample in usable["image"]] == ["good", "blue"]
    assert [(sample.id, len(sample.frames)) for sample in usable["video"]] == [("video", 2)]
    assert usable["image"][0].captions == ("a red square",)
    assert Counter(reject.reason for reject in refused) == {
        "not a picture": 1,
        "no such file": 1,
        "too small": 1,
        "too many pixels": 1,
        "no caption": 1,
        "duplicate id": 1,
    }


def test_foreign_images_are_encoded_like_stored_ones(
    model: DualEncoder, embedded: EmbeddedSplit, tmp_path: Path
) -> None:
    usable, _ = ingest_by_media(iter([foreign("a", png("red"), "a red square in test")]), build_ingestor(tmp_path))
    np.testing.assert_allclose(embed(model, usable["image"], batch_size=2).items[0], embedded.items[0], atol=0.05)
