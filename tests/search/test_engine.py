"""Search over images and videos: which frame of a video a result names, and its thumbnail."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cots.config.params import Params
from cots.data.images import encode_jpeg
from cots.data.ingest.ingestor import IngestedSample, Ingestor
from cots.data.manifest import SCHEMA, write_table
from cots.data.samples import Sample
from cots.errors import BadInput
from cots.index.frame_embeddings import FrameEmbeddings
from cots.models.dual_encoder import DualEncoder
from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import Query, ResultMedia, encode_queries
from cots.stages.index import stage
from tests.stored import store

ROOT = Path(__file__).parents[2]
VIDEOS = {  # colours of the frames
    "day": ("blue", "white", "yellow", "red"),
    "night": ("black", "navy", "purple", "black"),
    "field": ("green", "lime"),
}
IMAGES = ("red", "lime", "black")


def square(colour: str) -> Image.Image:
    return Image.new("RGB", (40, 32), colour)


def samples() -> list[Sample]:
    videos = {name: tuple(encode_jpeg(square(colour)) for colour in frames) for name, frames in VIDEOS.items()}
    images = {name: encode_jpeg(square(name)) for name in IMAGES}
    return [
        Sample(
            id=name,
            split="test",
            media="image" if name in images else "video",
            captions=(f"a {name} thing",),
            is_mismatched=(False,),
            content=content,
            origin="drawn",
        )
        for name, content in (images | videos).items()
    ]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """What stage `index` writes for three images and three videos."""
    folder = tmp_path_factory.mktemp("search")
    ingest = Ingestor(
        root=folder,
        withdrawn={},
        size=32,
        max_frames=8,
        min_side=8,
        max_pixels=10_000,
        max_bytes=10**6,
        max_seconds=60,
        max_caption_chars=99,
    )
    usable = [sample for sample in map(ingest, samples()) if isinstance(sample, IngestedSample)]
    write_table(folder / "manifest.parquet", store(usable, folder / "shards", samples_per_shard=10), SCHEMA)
    params = Params.load(ROOT / "params.yaml")
    stage(folder / "shards", folder / "manifest.parquet", tiny_model, folder / "index", params=params)
    return folder / "index"


@pytest.fixture(scope="module")
def search(tiny_model: Path, index: Path) -> SearchEngine:
    return SearchEngine.load(tiny_model, index)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> DualEncoder:
    return DualEncoder.load(tiny_model)


@pytest.mark.parametrize(
    "content", ["a red square", "a blue square", "green", square("purple"), square("yellow"), square("white")]
)
def test_a_video_names_the_frame_that_is_most_similar_to_the_query(
    search: SearchEngine, model: DualEncoder, content: str | Image.Image
) -> None:
    [results] = search([Query(content, 6)], batch_size=4)
    [query] = encode_queries(model, [Query(content, 6)], batch_size=1)
    frames = {result["id"]: result["frame"] for result in results}
    assert frames.keys() == set(VIDEOS) | set(IMAGES)
    for name, colours in VIDEOS.items():
        similarities = [float(model.encode_images([square(c)], batch_size=1)[0] @ query) for c in colours]
        assert similarities[frames[name]] == pytest.approx(max(similarities), abs=0.004)  # half precision, JPEG
    assert {frames[name] for name in IMAGES} == {0}


def test_a_query_with_a_frame_finds_that_frame(search: SearchEngine) -> None:
    frames = [(name, number, colour) for name, colours in VIDEOS.items() for number, colour in enumerate(colours)]
    for name, number, colour in frames:
        [results] = search([Query(square(colour), 6)], batch_size=4)
        [frame] = [result["frame"] for result in results if result["id"] == name]
        assert VIDEOS[name][frame] == colour, (name, number)


def test_every_query_of_a_batch_has_its_own_best_frames(search: SearchEngine) -> None:
    queries = [Query(square("yellow"), 6), Query("a red square", 2), Query(square("blue"), 4)]
    batched = search(queries, batch_size=4)
    for query, results in zip(queries, batched, strict=True):
        [expected] = search([query], batch_size=4)
        assert [(hit["id"], hit["frame"]) for hit in results] == [(hit["id"], hit["frame"]) for hit in expected]


def test_the_thumbnail_of_a_result_is_the_image_or_the_best_frame(search: SearchEngine) -> None:
    [results] = search([Query(square("navy"), 6)], batch_size=4)
    for hit, image in zip(results, search.result_images(results), strict=True):
        expected = VIDEOS[hit["id"]][hit["frame"]] if hit["media"] == "video" else hit["id"]
        shown = np.asarray(image, dtype=float).mean(axis=(0, 1))
        np.testing.assert_allclose(shown, np.asarray(square(expected), dtype=float).mean(axis=(0, 1)), atol=3)


def test_the_message_about_missing_frames_or_thumbnails_names_the_command_that_writes_them(
    tiny_model: Path, index: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(index, tmp_path / "index")
    (copy / "previews.tar").unlink()
    engine = SearchEngine.load(tiny_model, copy)
    with pytest.raises(BadInput, match="no thumbnails in .*: run `dvc repro --force index package`"):
        engine.result_images(engine([Query("red", 1)], batch_size=1)[0])
    (copy / "frames.safetensors").unlink()
    with pytest.raises(BadInput, match="no frame embeddings .*: run `dvc repro --force index`"):
        SearchEngine.load(tiny_model, copy)


@pytest.mark.parametrize("content", ["a blue thing", square("navy")])
def test_results_of_one_media_type_are_those_of_all_types_without_the_others(
    search: SearchEngine, content: str | Image.Image
) -> None:
    media: list[ResultMedia] = ["any", "image", "video"]
    unfiltered, *filtered = search([Query(content, 6, kind) for kind in media], batch_size=1)
    for kind, results in zip(media[1:], filtered, strict=True):
        expected = [hit for hit in unfiltered if hit["media"] == kind]
        assert [hit["id"] for hit in results] == [hit["id"] for hit in expected]
        assert [hit["rank"] for hit in results] == [1, 2, 3]
    [[best]] = search([Query(content, 1, "video")], batch_size=1)
    assert best["id"] == filtered[1][0]["id"]


def test_captions_are_ranked_by_similarity_and_name_the_item_that_they_describe(
    search: SearchEngine, model: DualEncoder
) -> None:
    [results] = search([Query(square("lime"), 9, "text")], batch_size=1)
    [query] = model.encode_images([square("lime")], batch_size=1)
    names = [*VIDEOS, *IMAGES]
    similarities = model.encode_texts([f"a {name} thing" for name in names], batch_size=9) @ query
    assert [hit["score"] for hit in results] == pytest.approx(sorted(similarities.tolist(), reverse=True), abs=0.01)
    assert {(hit["id"], *hit["captions"]) for hit in results} == {(name, f"a {name} thing") for name in names}
    assert {hit["media"] for hit in results} == {"text"}
    rows = dict(zip(search.items["id"], range(6), strict=True))
    assert all(hit["row"] == rows[hit["id"]] for hit in results)


def test_a_media_type_that_is_not_indexed_has_no_results(tiny_model: Path, tiny_index: Path) -> None:
    assert SearchEngine.load(tiny_model, tiny_index)([Query("red", 3, "video"), Query("red", 3)], batch_size=2)[0] == []


def test_a_search_by_texts_alone_gives_the_same_results_without_an_image_encoder(
    search: SearchEngine, tiny_model: Path, index: Path
) -> None:
    texts_only = SearchEngine.load(tiny_model, index, texts_only=True)
    assert not hasattr(texts_only.model, "image")
    assert texts_only.model.digest == search.model.digest
    queries = [Query("a red square", 6), Query("lime", 9, "text"), Query("blue", 3, "video")]
    assert texts_only(queries, batch_size=2) == search(queries, batch_size=2)


def test_texts_alone_are_searched_in_the_index_of_the_same_encoders_only(
    tiny_model: Path, index: Path, tmp_path: Path
) -> None:
    other = DualEncoder.load(tiny_model)
    with torch.no_grad():
        other.image.projection.weight.mul_(2)
    other.save(tmp_path / "other")
    with pytest.raises(BadInput, match="embeddings of different encoders cannot be compared"):
        SearchEngine.load(tmp_path / "other", index, texts_only=True)


def test_captions_that_do_not_match_their_vectors_are_refused(tiny_model: Path, index: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(index, tmp_path / "index")
    captions = pd.read_parquet(copy / "captions.parquet")
    captions.iloc[1:].to_parquet(copy / "captions.parquet")
    with pytest.raises(BadInput, match=r"6 vectors for 5 captions.*: run `dvc repro --force index`"):
        SearchEngine.load(tiny_model, copy)
    (copy / "captions.faiss").unlink()
    with pytest.raises(BadInput, match=r"no index .*captions\.faiss.*: run `dvc repro --force index`"):
        SearchEngine.load(tiny_model, copy)


def test_frames_of_other_items_are_refused(tiny_model: Path, index: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(index, tmp_path / "index")
    FrameEmbeddings.of(np.zeros((0, 16), np.float32), [0] * 5).save(copy / "frames.safetensors")
    with pytest.raises(BadInput, match="6 vectors for 6 items and the frames of 5"):
        SearchEngine.load(tiny_model, copy)


def test_metadata_of_items_are_columns_to_filter_by(tiny_model: Path, index: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(index, tmp_path / "index")
    items = pd.read_parquet(copy / "items.parquet").drop(columns="metadata", errors="ignore")
    fields = ['{"year": 2024, "place": "Oslo"}', '{"year": 2025, "place": null}', None, '{"year": 2024, "sharp": true}']
    items.assign(metadata=pd.Series(fields).reindex(items.index)).to_parquet(copy / "items.parquet")
    search = SearchEngine.load(tiny_model, copy)
    assert search.filters.count_values(5) == {
        "place": [("Oslo", 1)],
        "sharp": [("true", 1)],
        "split": [("test", 6)],
        "year": [("2024", 2), ("2025", 1)],
    }
    for where, rows in (
        ((("year", ("2024",)),), [0, 3]),
        ((("year", ("2024", "2025")), ("place", ("Oslo",))), [0]),
        ((("sharp", ("true",)),), [3]),
        ((("year", ()),), []),
    ):
        for media in ("any", "text"):
            [results] = search([Query("red", 6, media, where=where)], batch_size=1)
            assert sorted(hit["row"] for hit in results) == rows
    with pytest.raises(BadInput, match="the items have no column 'yaer': they have place, sharp, year, split"):
        search.filters.require_columns((("yaer", ("2024",)),))
    items.assign(metadata="[]").to_parquet(copy / "items.parquet")
    with pytest.raises(BadInput, match="is not a JSON object"):
        SearchEngine.load(tiny_model, copy)
