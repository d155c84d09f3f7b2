"""Images and videos without captions, from the source to the search: found, never trained or measured on."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cots.config.drift import DriftConfig
from cots.config.params import Params
from cots.data.manifest import read_manifest, read_pieces, select_captioned
from cots.data.stored_samples import decode_frames, read_stored_samples
from cots.errors import BadInput, RunFailed
from cots.factory.train_loader import read_samples
from cots.models.dual_encoder import DualEncoder
from cots.monitoring.drift import DriftMonitor
from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import Query
from cots.stages import index, prepare, tokenize, train_dvae, validate
from cots.training.pair_stats import PairStats

ROOT = Path(__file__).parents[2]
Encoded = Callable[..., bytes]
NAMES = ["a.jpg", "b.jpg", "c.jpg", "more/d.jpg", "more/e.jpg", "f.mp4", "g.jpg"]
PREPARE = {"size": 32, "max_rejected": 0.0, "samples_per_shard": 2}


def params(source: Path, **changed: object) -> Params:
    content = Params.load(ROOT / "params.yaml").dump_all()
    keys = {"kind": "folder", "path": str(source), "holdout": {"val": 0.0, "test": 0.0}, **changed}
    small = {"dvae": content["dvae"] | {"steps": 2, "batch_size": 2}, "prepare": content["prepare"] | PREPARE}
    return Params.model_validate(content | small | {"source": keys})


def run_prepare(out: Path, chosen: Params) -> pd.DataFrame:
    withdrawn = ROOT / "withdrawn.csv"
    outputs = (out / "shards", out / "manifest.parquet", out / "rejected.parquet")
    prepare.stage(chosen.source.path, withdrawn, *outputs, params=chosen)
    return read_manifest(out / "manifest.parquet")


def run_validate(data: Path, chosen: Params) -> None:
    tables = (data / "manifest.parquet", data / "rejected.parquet", ROOT / "suspects.csv")
    validate.stage(data / "shards", *tables, data / "validation", params=chosen)


def run_index(data: Path, model: Path, chosen: Params) -> SearchEngine:
    index.stage(data / "shards", data / "manifest.parquet", model, data / "index", params=chosen)
    return SearchEngine.load(model, data / "index")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, make_image: Encoded, make_video: Encoded) -> Path:
    """Six images, the last of which repeats the one before it, and a video, without captions."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "more").mkdir()
    for seed, name in enumerate(NAMES):
        same = min(seed, 4)
        (folder / name).write_bytes(make_video() if name.endswith("mp4") else make_image(seed=same))
    (folder / ".hidden.jpg").write_bytes(b"no image")
    (folder / "notes.md").write_text("none either")
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Path:
    """Prepared data of a table that names four of the files, one of them without a caption."""
    folder = tmp_path_factory.mktemp("mixed")
    source = Path(shutil.copytree(files, folder / "source"))
    rows = [
        "image,caption,split,Year",
        "a.jpg,a dog,train,1999",
        "./b.jpg,a cat,train,",
        "c.jpg,a hen,test,",
        "more/d.jpg,,train,caf\udce9",
    ]
    (source / "captions.csv").write_bytes("\n".join(rows).encode(errors="surrogateescape"))
    run_prepare(folder / "data", params(source, include_unlisted=True))
    return folder / "data"


def test_a_folder_of_images_alone_is_a_gallery_and_none_of_them_is_rejected(tmp_path: Path, files: Path) -> None:
    manifest = run_prepare(tmp_path, params(files))
    assert sorted(manifest["id"]) == sorted(NAMES)
    assert set(manifest["split"]) == {"gallery"}
    assert manifest["captions"].map(len).sum() == 0
    assert set(manifest["shard"]) == {f"gallery/image-0000{n}.tar" for n in range(3)} | {"gallery/video-00000.tar"}
    with pytest.raises(BadInput, match="none of 7 samples has a caption, so there is nothing to train or measure on"):
        run_validate(tmp_path, params(files))


def test_only_what_cannot_be_read_counts_as_rejected(tmp_path: Path, files: Path) -> None:
    source = Path(shutil.copytree(files, tmp_path / "source"))
    (source / "broken.jpg").write_text("no image")
    with pytest.raises(RunFailed, match="1 of 8 samples are rejected"):
        run_prepare(tmp_path, params(source))


def test_text_files_beside_the_images_hold_their_captions(tmp_path: Path, files: Path) -> None:
    source = Path(shutil.copytree(files, tmp_path / "source"))
    (source / "a.txt").write_text("a dog\n\n  one more dog \n", encoding="utf-8-sig")
    (source / "more/d.txt").write_text("a hen")
    (source / "f.txt").write_text("a film")
    (tmp_path / "secret.txt").write_text("a secret")
    (source / "b.txt").symlink_to(tmp_path / "secret.txt")
    (source / "c.txt").touch()
    os.truncate(source / "c.txt", (1 << 24) + 1)  # a hole, so that nothing is written
    chosen = params(source)
    mild = chosen.prepare.model_copy(update={"max_rejected": 0.5})
    manifest = run_prepare(tmp_path, chosen.model_copy(update={"prepare": mild})).set_index("id")
    reasons = pd.read_parquet(tmp_path / "rejected.parquet").set_index("id")["reason"].to_dict()
    assert reasons == {"b.jpg": "outside the data folder", "c.jpg": "caption not text"}
    captioned = select_captioned(manifest)
    texts = {"a.jpg": ["a dog", "one more dog"], "more/d.jpg": ["a hen"], "f.mp4": ["a film"]}
    assert {name: list(captions) for name, captions in captioned["captions"].items()} == texts
    assert set(captioned["split"]) == {"train"}
    assert captioned.loc["a.jpg", "origin"] == "a.txt"


def test_files_that_the_table_does_not_name_are_taken_on_request_alone(mixed: Path, tmp_path: Path) -> None:
    source = mixed.parent / "source"
    by_split = read_manifest(mixed / "manifest.parquet").groupby("split")["id"].agg(sorted).to_dict()
    gallery = ["f.mp4", "g.jpg", "more/d.jpg", "more/e.jpg"]
    assert by_split == {"train": ["./b.jpg", "a.jpg"], "test": ["c.jpg"], "gallery": gallery}
    assert len(run_prepare(tmp_path, params(source))) == 4


@pytest.mark.slow
def test_validation_holds_captions_and_repeats_of_the_gallery_against_nothing(mixed: Path) -> None:
    run_validate(mixed, params(mixed.parent / "source"))
    summary = json.loads((mixed / "validation/summary.json").read_text())
    assert summary["success"]
    parts = {"train image": 2, "test image": 1, "gallery image": 3, "gallery video": 1}
    assert summary["overview"]["samples"] == parts
    assert summary["overview"]["captions"] == 3


def test_the_gallery_is_indexed_and_found(mixed: Path, tiny_model: Path) -> None:
    manifest, model = read_manifest(mixed / "manifest.parquet"), DualEncoder.load(tiny_model)
    engine = run_index(mixed, tiny_model, params(mixed.parent / "source"))
    samples = {sample.id: sample for sample in read_stored_samples(mixed / "shards", manifest)}
    for name in ("f.mp4", "more/d.jpg"):  # the others are there twice, or have captions
        (vector,) = model.encode_videos([decode_frames(samples[name])], batch_size=1)
        ((best, *_),) = engine.search_vectors([Query("", 2, "any")], vector[None])
        assert (best["id"], best["captions"], best["split"]) == (name, [], "gallery")
    assert engine.captions.texts == ["a dog", "a cat", "a hen"]
    items = pd.read_parquet(mixed / "index/items.parquet").set_index("id")["metadata"].dropna()
    assert {name: json.loads(text) for name, text in items.items()} == {
        "a.jpg": {"Year": "1999"},
        "more/d.jpg": {"Year": "caf\\udce9"},
    }


def test_an_index_without_any_caption_finds_images_and_no_captions(
    tmp_path: Path, files: Path, tiny_model: Path
) -> None:
    chosen = params(files)
    run_prepare(tmp_path, chosen)
    engine = run_index(tmp_path, tiny_model, chosen)
    by_media = [len(engine([Query("a dog", 10, media)], batch_size=1)[0]) for media in ("any", "text")]
    assert by_media == [7, 0]
    about = json.loads((tmp_path / "index/index.json").read_text())
    assert (about["size"], about["captions"], about["recall"]) == (7, 0, 1.0)


def test_tokens_and_vocabulary_are_those_of_the_training_samples(mixed: Path, tmp_path: Path) -> None:
    chosen = params(mixed.parent / "source")
    paths = (mixed / "shards", mixed / "manifest.parquet")
    train_dvae.stage(*paths, tmp_path / "dvae", tmp_path / "report", params=chosen)
    tokenize.stage(*paths, tmp_path / "dvae", tmp_path / "tokens", tmp_path / "tokenizer", params=chosen)
    tokens = sorted(str(file.relative_to(tmp_path / "tokens")) for file in tmp_path.glob("tokens/*/*"))
    assert tokens == ["train/image-00000.safetensors"]


def test_pair_statistics_have_no_row_of_the_gallery(mixed: Path) -> None:
    manifest = mixed / "manifest.parquet"
    assert read_samples(manifest, ("image",)).caption_offsets.tolist() == [0, 1, 2, 3, 3, 3, 3, 3]
    stats = PairStats(num_captions=3)
    stats.seen[:] = torch.tensor([1, 0, 2])
    table = stats.to_table(read_pieces(manifest, ["id", "captions"]))
    assert table[["id", "caption", "seen"]].to_numpy().tolist() == [["a.jpg", 0, 1], ["c.jpg", 0, 2]]


def test_drift_looks_at_samples_with_captions_alone(mixed: Path, tiny_model: Path) -> None:
    manifest = read_manifest(mixed / "manifest.parquet")
    monitor = DriftMonitor(
        DualEncoder.load(tiny_model),
        training_manifest=manifest,
        manifest=pd.concat([manifest, manifest.assign(id=manifest["id"] + "2", split="gallery")]),
        shards=mixed / "shards",
        limits=DriftConfig(min_rows=2),
    )
    checks = {check.name: check for check in monitor(None)}
    assert checks["all samples, splits"].num_rows == 3
    assert checks["new samples, captions"].num_rows == 0
    assert np.all([result.success for result in checks["all samples, splits"].results])
