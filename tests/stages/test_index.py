"""Stage `index` on tiny real shards with a model of random weights."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import webdataset as wds

from cots.config.index import IndexConfig
from cots.config.params import Params
from cots.data.manifest import read_manifest
from cots.data.stored_samples import decode_frames, read_stored_samples
from cots.errors import BadInput
from cots.evaluation.embedding import embed
from cots.index import auto_index
from cots.index.embedding_index import EmbeddingIndex
from cots.index.frame_embeddings import FrameEmbeddings
from cots.index.thumbnails import Thumbnails
from cots.models.dual_encoder import DualEncoder
from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import Query
from cots.stages import index as index_stage
from cots.stages.index import stage
from cots.withdraw import write_index_without
from tests.launched import launched

WRITTEN = {
    "index.faiss",
    "items.parquet",
    "previews.tar",
    "frames.safetensors",
    "captions.faiss",
    "captions.parquet",
    "index.json",
}


def params(**index: object) -> Params:
    chosen = Params.load(Path(__file__).parents[2] / "params.yaml")
    small = {"recall_queries": 20, "thumbnail_size": 24} | index
    return chosen.model_copy(update={"index": IndexConfig.model_validate(chosen.index.model_dump() | small)})


def run(data: Path, model: Path, out: Path, **index: object) -> None:
    stage(data / "shards", data / "manifest.parquet", model, out, params=params(**index))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path) -> Path:
    out = tmp_path_factory.mktemp("out") / "index"
    run(tiny_data, tiny_model, out)
    return out


def test_row_i_of_items_is_vector_i(built: Path, tiny_model: Path, tiny_data: Path) -> None:
    manifest = read_manifest(tiny_data / "manifest.parquet")
    items, index = pd.read_parquet(built / "items.parquet"), EmbeddingIndex.load(built / "index.faiss")
    assert list(items) == ["id", "media", "split", "captions", "origin", "metadata"]
    assert items["id"].tolist() == manifest["id"].tolist()
    assert len(index) == len(items) == 27
    vectors = embed(
        DualEncoder.load(tiny_model), read_stored_samples(tiny_data / "shards", manifest), batch_size=8
    ).items
    scores, _ = index.search(vectors, 1)
    np.testing.assert_allclose(scores[:, 0], 1, atol=0.02)  # bfloat16 in other batches


def test_previews_of_all_frames_lie_in_the_order_of_the_rows(built: Path) -> None:
    items = pd.read_parquet(built / "items.parquet")
    frames = [(row, n) for row, media in enumerate(items["media"]) for n in range(3 if media == "video" else 1)]
    with tarfile.open(built / "previews.tar") as tar:
        assert tar.getnames() == [f"{row:09d}.{n:03d}.jpg" for row, n in frames]
    # Frame n is 40 + 2 n wide and 32 high.
    previews = Thumbnails(built / "previews.tar")
    sizes = [previews.image(*frame).size for frame in frames]
    assert sizes == [(24, round(24 * 32 / (40 + 2 * n))) for _, n in frames]


def test_no_header_of_a_preview_is_kept_that_is_written(
    tmp_path: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, close = [], wds.TarWriter.close

    def count_and_close(tar: wds.TarWriter) -> None:
        kept.append(len(tar.tarstream.members))
        close(tar)

    monkeypatch.setattr(wds.TarWriter, "close", count_and_close)
    run(tiny_data, tiny_model, tmp_path / "index")
    assert kept == [0]


def test_previews_are_never_enlarged(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    run(tiny_data, tiny_model, tmp_path / "index", thumbnail_size=500)
    assert Thumbnails(tmp_path / "index" / "previews.tar").image(0, 0).size == (40, 32)


def test_each_frame_of_a_video_has_its_own_vector_and_an_image_has_none(
    built: Path, tiny_model: Path, tiny_data: Path
) -> None:
    manifest = read_manifest(tiny_data / "manifest.parquet")
    model, frames = DualEncoder.load(tiny_model), FrameEmbeddings.load(built / "frames.safetensors")
    assert len(frames) == len(manifest)
    for row, sample in enumerate(read_stored_samples(tiny_data / "shards", manifest)):
        own = frames.vectors[frames.starts[row] : frames.starts[row + 1]]
        several = decode_frames(sample) if len(sample.frames) > 1 else []
        np.testing.assert_allclose(own, model.encode_images(several, batch_size=8), atol=0.02)


def test_every_caption_is_a_vector_once_and_names_the_items_that_it_describes(built: Path, tiny_model: Path) -> None:
    items, captions = pd.read_parquet(built / "items.parquet"), pd.read_parquet(built / "captions.parquet")
    assert captions["caption"].is_unique
    described = {(caption, row) for caption, rows in captions.itertuples(index=False) for row in rows}
    assert described == {(caption, row) for row, own in enumerate(items["captions"]) for caption in own}
    index = EmbeddingIndex.load(built / "captions.faiss")
    vectors = DualEncoder.load(tiny_model).encode_texts(captions["caption"].tolist(), batch_size=8)
    assert len(index) == len(captions)
    np.testing.assert_allclose(index.search(vectors, 1)[0][:, 0], 1, atol=0.02)  # bfloat16 in other batches


def test_the_index_tells_what_made_it_and_how_well_it_finds(built: Path, tiny_model: Path) -> None:
    about = json.loads((built / "index.json").read_text())
    assert about.pop("ms_per_query") > 0
    digest = DualEncoder.load(tiny_model).digest
    made = {"kind": "Flat", "settings": "", "dim": 16, "size": 27, "captions": 27}
    assert about == made | {"encoder": digest, "recall": 1.0}


def test_an_approximate_index_admits_what_it_misses(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    run(tiny_data, tiny_model, tmp_path / "index", factory="IVF16,Flat")
    recall = json.loads((tmp_path / "index" / "index.json").read_text())["recall"]
    assert 0 < recall < 1


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path) -> Path:
    """As `built`, but items and captions count as too many for exact search and for a graph."""
    out = tmp_path_factory.mktemp("lists") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto_index, "EXACT_BYTES", 0)
        patch.setattr(auto_index, "GRAPH_BYTES", 0)
        patch.setattr(index_stage, "TEXTS_AT_ONCE", 10)
        run(tiny_data, tiny_model, out)
    return out


def test_too_many_items_for_a_graph_are_searched_in_lists_by_the_same_rules(
    lists: Path, built: Path, tiny_model: Path
) -> None:
    about = json.loads((lists / "index.json").read_text())
    assert about["kind"] == "IVF16,SQ8"
    assert about["settings"].startswith("nprobe=")
    assert {path.name for path in lists.iterdir()} == WRITTEN
    exact, approximate = (SearchEngine.load(tiny_model, folder) for folder in (built, lists))
    queries = [
        Query("a red square", 40),
        Query("a red square", 40, media="video"),
        Query("a red square", 40, media="text"),
        Query("a red square", 40, where=(("split", ("val",)),)),
    ]
    for expected, results in zip(exact(queries, batch_size=8), approximate(queries, batch_size=8), strict=True):
        scores = {result["row"]: result["score"] for result in expected}
        assert [result["score"] for result in results] == pytest.approx(
            [scores[hit["row"]] for hit in results], abs=0.05
        )
        assert all(result["best_caption"] is not None for result in results)
    pages = [Query("a red square", 5, offset=offset) for offset in range(0, 30, 5)]
    paged = [result["row"] for page in approximate(pages, batch_size=8) for result in page]
    [whole] = approximate([Query("a red square", 40)], batch_size=8)
    assert paged == [result["row"] for result in whole]


def test_withdrawn_items_leave_lists(
    lists: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_index, "EXACT_BYTES", 0)
    monkeypatch.setattr(auto_index, "GRAPH_BYTES", 0)
    before = pd.read_parquet(lists / "items.parquet")
    write_index_without(before["id"][5:7].tolist(), lists, tmp_path / "index", settings=params().index)
    remaining = pd.read_parquet(tmp_path / "index" / "items.parquet")
    assert remaining["id"].tolist() == before["id"].drop([5, 6]).tolist()
    assert {path.name for path in (tmp_path / "index").iterdir()} == WRITTEN
    old, new = (EmbeddingIndex.load(folder / "index.faiss").vectors for folder in (lists, tmp_path / "index"))
    np.testing.assert_allclose(new, np.delete(old, [5, 6], axis=0), atol=0.05)
    [results] = SearchEngine.load(tiny_model, tmp_path / "index")([Query("a red square", 40)], batch_size=8)
    assert len(results) == len(remaining)


def test_a_second_run_gives_the_same_bytes(tmp_path: Path, built: Path, tiny_model: Path, tiny_data: Path) -> None:
    run(tiny_data, tiny_model, tmp_path / "index")
    names = {path.name for path in built.iterdir()} - {"index.json"}
    assert names == WRITTEN - {"index.json"}
    for name in names:
        first, second = (
            hashlib.sha256((folder / name).read_bytes()).digest() for folder in (built, tmp_path / "index")
        )
        assert first == second, name


def test_only_the_chosen_splits_are_searched(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    run(tiny_data, tiny_model, tmp_path / "index", splits=("val",))
    assert set(pd.read_parquet(tmp_path / "index" / "items.parquet")["split"]) == {"val"}


def test_an_older_index_is_replaced_whole(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "stale").touch()
    (tmp_path / "index.partial").mkdir()
    (tmp_path / "index.partial" / "left").touch()
    run(tiny_data, tiny_model, tmp_path / "index")
    names = {path.name for path in (tmp_path / "index").iterdir()}
    assert names == WRITTEN
    assert not (tmp_path / "index.partial").exists()


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"factory": "IVF64,Flat"}, r"index\.factory: cannot build 'IVF64,Flat' from 27 vectors"),
        ({"factory": "Nonsense"}, r"index\.factory: FAISS cannot create 'Nonsense'"),
        ({"splits": ()}, "has no sample of them"),
    ],
)
def test_what_cannot_be_built_is_reported_and_the_older_index_stays(
    index: dict[str, object], words: str, tmp_path: Path, tiny_model: Path, tiny_data: Path
) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "older").touch()
    with pytest.raises(BadInput, match=words):
        run(tiny_data, tiny_model, tmp_path / "index", **index)
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["older"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("processes", "batch_size", "splits"),
    [
        (2, 4, ("train", "val", "test")),  # batches of images, of videos and of both
        (3, 8, ("val",)),  # two batches
    ],
)
def test_several_processes_write_the_bytes_that_one_writes(
    processes: int,
    batch_size: int,
    splits: tuple[str, ...],
    tmp_path: Path,
    tiny_data: Path,
    tiny_model: Path,
    fork_python: str,
) -> None:
    chosen = params(splits=splits)
    chosen = chosen.model_copy(update={"evaluate": chosen.evaluate.model_copy(update={"batch_size": batch_size})})
    shutil.copytree(tiny_model, tmp_path / "models" / chosen.index.target)
    files = (tiny_data / "shards", tiny_data / "manifest.parquet", tmp_path / "models")
    for name, count in (("one", 1), ("many", processes)):
        launched(tmp_path, count, "index", *files, tmp_path / name, params=chosen, python=fork_python)
    assert {path.name for path in (tmp_path / "many").iterdir()} == WRITTEN
    for name in WRITTEN - {"index.json"}:
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    single, many = (json.loads((tmp_path / name / "index.json").read_text()) for name in ("one", "many"))
    assert many | {"ms_per_query": 0} == single | {"ms_per_query": 0}


def test_what_was_indexed_before_is_not_encoded_again_and_what_left_is_forgotten(
    built: Path, tiny_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remembering(out: str, **index: object) -> Path:
        inputs = (tiny_data / "shards", tiny_data / "manifest.parquet", tiny_model, tmp_path / out)
        stage(*inputs, params=params(**index), cache_dir=tmp_path / "memory")
        return tmp_path / out

    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "others.safetensors").write_bytes(b"of encoders before")
    first = remembering("first")
    [kept] = (tmp_path / "memory").iterdir()
    size = kept.stat().st_size
    with monkeypatch.context() as patch:
        patch.setattr(DualEncoder, "encode_videos_and_frames", None)
        patch.setattr(DualEncoder, "encode_text_batches", None)
        second = remembering("second")
        assert remembering("fewer", splits=["test"]).is_dir()
    assert kept.stat().st_size < size
    for name in WRITTEN - {"index.json"}:  # which holds a timing
        assert (first / name).read_bytes() == (built / name).read_bytes()
        assert (second / name).read_bytes() == (built / name).read_bytes()
