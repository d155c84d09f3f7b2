"""The pipeline with source and data in a bucket: the same models, and nothing but lists in the project's folder."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cots.config.params import Params
from cots.data.store import LIST, list_store, read_list
from cots.factory.model import build_model
from cots.models.dual_encoder import DualEncoder
from cots.stages import index, prepare, tokenize, train_dvae, validate
from cots.training.fit import Inputs, fit
from tests.buckets import upload
from tests.conftest import COLOURS, Encoded
from tests.training.conftest import tiny_params

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LIMITS = {"max_leakage": 1.0, "max_duplicates": 1.0}
DATA, MODELS = Path("data"), Path("models")


@pytest.fixture
def source(tmp_path: Path, make_image: Encoded) -> Path:
    """A table of sixteen images in three splits."""
    folder = tmp_path / "source"
    folder.mkdir()
    rows = ["image,caption,split"]
    for number in range(16):
        (folder / f"{number}.jpg").write_bytes(make_image(40, 32, seed=number))
        split = "train" if number < 10 else ("val", "test")[number % 2]
        rows.append(f"{number}.jpg,a {COLOURS[number % 6]} square on {COLOURS[number // 3]} ground,{split}")
    (folder / "captions.csv").write_text("\n".join(rows))
    return folder


def params_for(source: Path, store: Path | None) -> Params:
    small: dict[str, Any] = {"size": 32, "samples_per_shard": 4, "store": store and str(store)}
    params = tiny_params(prepare=small, validate=LIMITS, dvae={"steps": 1}, pretrain={"steps": 2})
    keys = {"kind": "folder", "path": str(source)}
    return Params.model_validate(params.model_dump(mode="json", by_alias=True) | {"source": keys})


def run(params: Params) -> DualEncoder:
    """All stages from the source to the index, in the current folder."""
    shards, manifest, rejected = DATA / "shards", DATA / "manifest.parquet", DATA / "rejected.parquet"
    prepare.stage(params.source.path, ROOT / "withdrawn.csv", shards, manifest, rejected, params=params)
    if params.prepare.store:
        validate.stage(shards, manifest, rejected, ROOT / "suspects.csv", Path("validation"), params=params)
    train_dvae.stage(shards, manifest, MODELS / "dvae", Path("report"), params=params)
    tokenize.stage(shards, manifest, MODELS / "dvae", DATA / "tokens", MODELS / "tokenizer", params=params)
    torch.manual_seed(params.pretrain.seed)
    model = build_model(params.model, MODELS / "tokenizer")
    inputs = Inputs(shards, manifest, DATA / "tokens")
    fit(model, inputs, Path("report"), name="pretrain", training=params.pretrain, num_codes=16, media=("image",))
    model.save(MODELS / "pretrained")
    index.stage(shards, manifest, MODELS / "pretrained", Path("index"), params=params)
    return model


def files_in(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_with_source_and_store_in_a_bucket_the_same_model_is_trained_and_the_folder_holds_lists(
    tmp_path: Path, source: Path, bucket_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(source, bucket_folder)
    store = bucket_folder.parent / "store"
    models = []
    for name, params in (
        ("disk", params_for(source, None)),
        ("bucket", params_for(bucket_folder, store)),
    ):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        models.append(run(params).digest)
    assert models[0] == models[1]
    for file in ("items.parquet", "index.faiss", "previews.tar"):
        assert Path("index", file).read_bytes() == (tmp_path / "disk/index" / file).read_bytes(), file
    assert files_in(DATA) == [
        "manifest.parquet",
        "rejected.parquet",
        f"shards/{LIST}",
        "tokens/fingerprint.txt",
        f"tokens/{LIST}",
    ]
    on_disk = tmp_path / "disk/data"
    for folder in ("shards", "tokens"):
        listed = read_list(DATA / folder)
        assert listed is not None
        expected = {name: (on_disk / folder / name).stat().st_size for name in files_in(on_disk / folder)}
        expected.pop("fingerprint.txt", None)
        assert {name: stored.bytes for name, stored in listed.parts.items()} == expected
    assert sum(stat.st_size for stat in list_store(store).values()) == sum(
        file.stat().st_size for file in on_disk.rglob("*/*/*") if file.is_file()
    )
