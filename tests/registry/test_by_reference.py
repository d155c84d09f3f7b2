"""Versions whose files are objects of a store: the registry has their lists alone."""

import shutil
from pathlib import Path

import mlflow
import pytest

from cots.data.store import LARGE, LIST, find_part, keep_folder, list_store
from cots.data.store_upkeep import find_unlisted
from cots.errors import BadInput, UnreadableFiles
from cots.index.index_folder import ITEM_INDEX
from cots.registry.client import ENCODERS, INDEX
from cots.registry.packaged import open_search
from cots.registry.registry import Registry
from cots.withdraw import deploy_without_withdrawn
from tests.buckets import remove_object
from tests.conftest import COLOURS, Cots, save_package
from tests.deployed import register

NAMES = {"captions.faiss", "captions.parquet", "frames.safetensors", "index.faiss", "items.parquet", "previews.tar"}


@pytest.fixture
def project(tmp_path: Path, store: str, tiny_model: Path, anywhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder with a package whose encoders and index are in a store."""
    folder = tmp_path / "project"
    encoders = shutil.copytree(tiny_model, folder / "models/finetuned/image-text")
    keep_folder(encoders, anywhere, stage="finetune@image-text")
    save_package(folder, encoders, recall=40.0, objects=anywhere)
    (folder / "params.yaml").write_text(f"source: {{kind: scenes}}\nprepare: {{store: '{anywhere}'}}\n")
    monkeypatch.chdir(folder)
    return folder


def found(uri: str) -> list[str]:
    with open_search(uri) as search:
        [results] = search.search(["a red square"], k=10, media="any")
    return sorted(result["id"] for result in results)


def object_of(part: Path) -> Path:
    kept = find_part(part)
    assert kept
    return kept.file


def test_a_version_is_served_from_the_objects_that_its_lists_name(
    project: Path, tmp_path: Path, anywhere: Path, cots: Cots
) -> None:
    registry = Registry()
    register(registry, Path("package"))
    names = [path.name for path in (tmp_path / "mlartifacts").rglob("*") if path.suffix in LARGE]
    assert set(names) == {LIST, "learnt.parquet", "queries.parquet"}
    assert found("models:/cots-index@champion") == found("package/index") == sorted(COLOURS)
    assert registry.get_artifacts(1).load_item_ids() == set(COLOURS)
    assert {name for listed in registry.load_lists() for name in listed.parts} == NAMES | {"model.safetensors"}
    needed = {line.partition("==")[0] for line in Path("package/index/requirements.txt").read_text().splitlines()}
    assert ("s3fs" in needed) == str(anywhere).startswith("s3://")
    model = mlflow.pyfunc.load_model("package/index")  # by the code in the package
    assert sorted(result["id"] for result in model.predict(["a red square"])[0]) == sorted(COLOURS)


def test_what_a_version_needs_is_not_swept_until_the_version_is_deleted(
    project: Path, anywhere: Path, cots: Cots
) -> None:
    register(Registry(), Path("package"))
    for folder in ("package", "models", "index"):
        shutil.rmtree(folder)
    keep_folder(shutil.copytree(Path("reports/evaluation"), Path("index")), anywhere, stage="index")
    total = len(NAMES) + 2  # with weights and what the new index holds
    code, out, _ = cots("data", "sweep", "--days", "0", "--remove")
    assert (code, out.partition(" (")[0]) == (0, f"0 of {total} objects in {anywhere}")
    for name in (INDEX, ENCODERS):
        mlflow.MlflowClient().delete_model_version(name, "1")
    code, out, _ = cots("data", "sweep", "--days", "0", "--remove")
    assert (code, out.partition(" (")[0]) == (0, f"{total - 1} of {total} objects in {anywhere}")
    assert len(list_store(anywhere)) == 1


def test_a_version_that_lacks_an_object_is_named_and_not_deployed(
    project: Path, tmp_path: Path, cots: Cots, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    register(registry, Path("package"))
    mlflow.MlflowClient().delete_registered_model_alias(INDEX, "champion")
    lost = object_of(Path("index", ITEM_INDEX))
    remove_object(lost)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-machine"))
    with pytest.raises(UnreadableFiles) as refused:
        registry.promote(1, why="a test")
    told = f"{lost}, which holds index.faiss, is missing: restore it, or delete the version in MLflow"
    assert str(refused.value) == f"cots-index version 1: {told}"
    with pytest.raises(BadInput, match=rf"{lost}, which holds .*index.faiss, is missing: run `dvc repro"):
        found("package/index")
    code, out, _ = cots("data", "check")
    assert code == 1
    assert out == f"{lost}, which holds index/index.faiss, is missing: run `dvc repro --force index`\n"
    shutil.rmtree(tmp_path / "mlartifacts")
    with pytest.raises(UnreadableFiles, match=r"cots-encoders version 1: .* cannot be read from .*: restore the files"):
        registry.load_lists()  # so that nothing is swept which it may need


def test_without_withdrawn_samples_a_version_is_kept_in_the_same_store(project: Path, anywhere: Path) -> None:
    registry = Registry()
    register(registry, Path("package"))
    before = set(list_store(anywhere))
    registry.withdraw({"red": "asked for"})
    assert deploy_without_withdrawn() == 2
    assert found("models:/cots-index@champion") == sorted({*COLOURS} - {"red"})
    assert set(list_store(anywhere)) > before
    unlisted = find_unlisted(anywhere, [], days=0, registered=registry.load_lists())
    assert (unlisted.objects, unlisted.total) == ({}, len(list_store(anywhere)))
