"""Search over pictures and clips together: which frame of a clip a result names, and what is shown of it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cots.config.params import Params
from cots.data.images import encode_jpeg
from cots.data.ingest.ingestor import IngestedSample, Ingestor
from cots.data.ingest.shard_writer import ShardWriter
from cots.data.manifest import SCHEMA, write_table
from cots.data.samples import Sample
from cots.errors import BadInput
from cots.index.frame_embeddings import FrameEmbeddings
from cots.search.engine import SearchEngine
from cots.search.queries import Query, ResultMedia, encode_queries
from cots.stages.index import stage

ROOT = Path(__file__).parents[2]
CLIPS = {  # colours of the frames
    "day": ("blue", "white", "yellow", "red"),
    "night": ("black", "navy", "purple", "black"),
    "field": ("green", "lime"),
}
PICTURES = ("red", "lime", "black")


def square(colour: str) -> Image.Image:
    return Image.new("RGB", (40, 32), colour)


def samples() -> list[Sample]:
    clips = {name: tuple(encode_jpeg(square(colour)) for colour in frames) for name, frames in CLIPS.items()}
    pictures = {name: encode_jpeg(square(name)) for name in PICTURES}
    return [
        Sample(
            id=name,
            split="test",
            media="image" if name in pictures else "video",
            captions=(f"a {name} thing",),
            is_mismatched=(False,),
            content=content,
            origin="drawn",
        )
        for name, content in (pictures | clips).items()
    ]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """What stage `index` makes of three pictures and three clips."""
    folder = tmp_path_factory.mktemp("search")
    shards = ShardWriter(folder / "shards", samples_per_shard=10)
    take = Ingestor(
        root=folder, withdrawn={}, size=32, max_frames=8, min_side=8, max_pixels=10_000, max_caption_chars=99
    )
    taken = [one for one in map(take, samples()) if isinstance(one, IngestedSample)]
    rows = [shards.add(one) for one in taken]
    shards.close()
    write_table(folder / "manifest.parquet", sorted(rows, key=lambda row: str(row["key"])), SCHEMA)
    params = Params.load(ROOT / "params.yaml")
    stage(folder / "shards", folder / "manifest.parquet", tiny_model, folder / "index", params=params)
    return folder / "index"


@pytest.fixture(scope="module")
def search(tiny_model: Path, index: Path) -> SearchEngine:
    return SearchEngine.load(tiny_model, index)


@pytest.mark.parametrize(
    "content", ["a red square", "a blue square", "green", square("purple"), square("yellow"), square("white")]
)
def test_a_clip_names_the_frame_that_is_nearest_to_the_query_by_itself(
    search: SearchEngine, content: str | Image.Image
) -> None:
    [results] = search([Query(content, 6)], batch_size=4)
    [query] = encode_queries(search.model, [Query(content, 6)], batch_size=1)
    named = {hit["id"]: hit["frame"] for hit in results}
    assert named.keys() == set(CLIPS) | set(PICTURES)
    for name, colours in CLIPS.items():
        similarities = [float(search.model.encode_images([square(c)], batch_size=1)[0] @ query) for c in colours]
        assert similarities[named[name]] == pytest.approx(max(similarities), abs=0.004)  # half precision, JPEG
    assert {named[name] for name in PICTURES} == {0}


def test_a_frame_that_is_looked_for_is_the_frame_that_is_found(search: SearchEngine) -> None:
    frames = [(name, number, colour) for name, colours in CLIPS.items() for number, colour in enumerate(colours)]
    for name, number, colour in frames:
        [results] = search([Query(square(colour), 6)], batch_size=4)
        [found] = [hit["frame"] for hit in results if hit["id"] == name]
        assert CLIPS[name][found] == colour, (name, number)


def test_every_query_of_a_batch_has_best_frames_of_its_own(search: SearchEngine) -> None:
    queries = [Query(square("yellow"), 6), Query("a red square", 2), Query(square("blue"), 4)]
    together = search(queries, batch_size=4)
    for query, results in zip(queries, together, strict=True):
        [alone] = search([query], batch_size=4)
        assert [(hit["id"], hit["frame"]) for hit in alone] == [(hit["id"], hit["frame"]) for hit in results]


def test_what_is_shown_of_a_result_is_its_best_frame_or_the_picture(search: SearchEngine) -> None:
    [results] = search([Query(square("navy"), 6)], batch_size=4)
    for hit, picture in zip(results, search.result_images(results), strict=True):
        expected = CLIPS[hit["id"]][hit["frame"]] if hit["media"] == "video" else hit["id"]
        shown = np.asarray(picture, dtype=float).mean(axis=(0, 1))
        np.testing.assert_allclose(shown, np.asarray(square(expected), dtype=float).mean(axis=(0, 1)), atol=3)


def test_an_index_without_frames_or_previews_is_refused_with_the_command_that_makes_them(
    tiny_model: Path, index: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(index, tmp_path / "index")
    (copy / "previews.tar").unlink()
    found = SearchEngine.load(tiny_model, copy)
    with pytest.raises(BadInput, match="no previews in .*: run `dvc repro --force index package`"):
        found.result_images(found([Query("red", 1)], batch_size=1)[0])
    (copy / "frames.safetensors").unlink()
    with pytest.raises(BadInput, match="no frames .*: run `dvc repro --force index`"):
        SearchEngine.load(tiny_model, copy)


@pytest.mark.parametrize("content", ["a blue thing", square("navy")])
def test_results_of_one_kind_are_those_of_all_kinds_without_the_others(
    search: SearchEngine, content: str | Image.Image
) -> None:
    media: list[ResultMedia] = ["any", "image", "video"]
    everything, *some = search([Query(content, 6, kind) for kind in media], batch_size=1)
    for kind, results in zip(media[1:], some, strict=True):
        expected = [hit for hit in everything if hit["media"] == kind]
        assert [hit["id"] for hit in results] == [hit["id"] for hit in expected]
        assert [hit["rank"] for hit in results] == [1, 2, 3]
    [[best]] = search([Query(content, 1, "video")], batch_size=1)
    assert best["id"] == some[1][0]["id"]


def test_captions_are_ranked_by_their_own_similarity_and_name_the_item_they_describe(search: SearchEngine) -> None:
    [results] = search([Query(square("lime"), 9, "text")], batch_size=1)
    [query] = search.model.encode_images([square("lime")], batch_size=1)
    names = [*CLIPS, *PICTURES]
    similar = search.model.encode_texts([f"a {name} thing" for name in names], batch_size=9) @ query
    assert [hit["score"] for hit in results] == pytest.approx(sorted(similar.tolist(), reverse=True), abs=0.01)
    assert {(hit["id"], *hit["captions"]) for hit in results} == {(name, f"a {name} thing") for name in names}
    assert {hit["media"] for hit in results} == {"text"}
    rows = dict(zip(search.items["id"], range(6), strict=True))
    assert all(hit["row"] == rows[hit["id"]] for hit in results)


def test_a_kind_that_is_not_indexed_has_no_results(tiny_model: Path, tiny_index: Path) -> None:
    assert SearchEngine.load(tiny_model, tiny_index)([Query("red", 3, "video"), Query("red", 3)], batch_size=2)[0] == []


def test_captions_that_do_not_fit_their_vectors_are_refused(tiny_model: Path, index: Path, tmp_path: Path) -> None:
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
