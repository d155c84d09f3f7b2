"""The pipeline with source and data in a bucket: the same models, and nothing but lists in the project's folder."""

from pathlib import Path
from typing import Any

import pytest

from cots.config.params import Params
from cots.data.object_cache import local_part
from cots.data.store import LARGE, LIST, read_list
from cots.models.dual_encoder import DualEncoder
from cots.stages import evaluate, finetune, index, package, prepare, pretrain, tokenize, train_dvae, validate
from tests.buckets import upload
from tests.conftest import COLOURS, Encoded
from tests.training.conftest import tiny_params

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LIMITS = {"max_leakage": 1.0, "max_duplicates": 1.0}
DATA, MODELS, REPORTS, RUNS = Path("data"), Path("models"), Path("reports"), Path("runs")


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


def run(params: Params) -> str:
    """All stages from the source to the package, in the current folder; digest of the encoders."""
    shards, manifest, rejected = DATA / "shards", DATA / "manifest.parquet", DATA / "rejected.parquet"
    dvae, tokens, tokenizer, start = MODELS / "dvae", DATA / "tokens", MODELS / "tokenizer", MODELS / "pretrained"
    image_text = MODELS / "finetuned/image-text"
    prepare.stage(params.source.path, ROOT / "withdrawn.csv", shards, manifest, rejected, params=params)
    validate.stage(shards, manifest, rejected, ROOT / "suspects.csv", REPORTS / "validation", params=params)
    train_dvae.stage(shards, manifest, dvae, REPORTS / "dvae", params=params)
    tokenize.stage(shards, manifest, dvae, tokens, tokenizer, params=params)
    trained = shards, manifest, tokens
    pretrain.stage(*trained, tokenizer, start, REPORTS / "pretrain", RUNS / "pretrain.json", params=params)
    reports, logged = REPORTS / "finetune/image-text", RUNS / "finetune-image-text.json"
    finetune.stage("image-text", *trained, start, image_text, reports, logged, params=params)
    ranks, metrics = REPORTS / "evaluation", REPORTS / "metrics.json"
    written = REPORTS, REPORTS / "headline.json", metrics, ranks, REPORTS / "index.html", RUNS / "evaluate.json"
    evaluate.stage(shards, manifest, rejected, start, MODELS / "finetuned", *written, params=params)
    index.stage(shards, manifest, image_text, Path("index"), params=params)
    package.stage(
        image_text, Path("index"), metrics, ranks, REPORTS / "validation", manifest, Path("package"), params=params
    )
    return DualEncoder.load(image_text).digest


def files_in(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def content(path: Path) -> bytes:
    return local_part(path).read_bytes()


def kept(folder: Path) -> dict[str, int]:
    """Bytes of each part of a folder."""
    listed = read_list(folder)
    assert listed is not None
    return {name: stored.bytes for name, stored in listed.parts.items()}


def test_with_source_and_store_in_a_bucket_the_same_model_is_trained_and_the_folder_holds_lists(
    tmp_path: Path, source: Path, store: str, bucket_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(source, bucket_folder)
    objects = bucket_folder.parent / "store"
    digests = []
    for name, params in (
        ("disk", params_for(source, None)),
        ("bucket", params_for(bucket_folder, objects)),
    ):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        digests.append(run(params))
    assert digests[0] == digests[1]
    for file in ("index/items.parquet", "index/index.faiss", "index/previews.tar", "models/dvae/dvae.safetensors"):
        assert content(Path(file)) == (tmp_path / "disk" / file).read_bytes(), file
    assert files_in(DATA) == [
        "manifest.parquet",
        "rejected.parquet",
        f"shards/{LIST}",
        "tokens/fingerprint.txt",
        f"tokens/{LIST}",
    ]
    on_disk = tmp_path / "disk"
    for folder in ("data/shards", "data/tokens", "index", "models/pretrained"):
        sizes = {name: (on_disk / folder / name).stat().st_size for name in files_in(on_disk / folder)}
        assert kept(Path(folder)) == {name: sizes[name] for name in sizes if Path(name).suffix in LARGE}, folder
    large = [name for name in files_in(Path()) if Path(name).suffix in LARGE and Path(name).name != LIST]
    assert [name for name in large if not name.startswith(("data/", "reports/"))] == [
        "package/evidence/learnt.parquet",
        "package/evidence/queries.parquet",
    ]
