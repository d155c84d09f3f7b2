"""Loading models by URI."""

import shutil
import tempfile
from pathlib import Path

import mlflow
import pytest

from cots.errors import BadInput
from cots.registry.catalog import find_local_version
from cots.registry.client import INDEX
from cots.registry.packaged import open_search
from cots.registry.registry import Registry
from cots.service.loaded_version import LoadedVersion, resolve
from cots.tracking.loading import load_encoders
from tests.deployed import register


@pytest.mark.slow
def test_what_is_fetched_from_the_registry_answers_and_is_not_kept(
    store: str, tiny_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(Registry(), tiny_package)
    scratch = tmp_path / "temporary"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    encoders = load_encoders(f"models:/{INDEX}@champion")
    with open_search(f"models:/{INDEX}@champion") as search:
        [results] = search.search(["a red square"], k=10, media="any")
        assert search.engine.result_images(results)
    assert encoders.encode_texts(["a red square"], batch_size=1).shape[0] == 1
    assert results
    assert not list(scratch.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("local", [True, False])
def test_a_version_whose_files_changed_is_not_searched(
    store: str, tiny_package: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    register(Registry(), tiny_package)
    version = find_local_version(f"models:/{INDEX}@champion")
    assert version is not None
    if not local:
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", store)
        assert find_local_version(f"models:/{INDEX}@champion") is None
    (version.folder / "artifacts/index/items.parquet").write_bytes(b"other bytes")
    with (
        pytest.raises(BadInput, match="models:/cots-index@champion is damaged"),
        open_search(f"models:/{INDEX}@champion"),
    ):
        pass
    with pytest.raises(BadInput, match="models:/cots-index@champion is damaged"):
        load_encoders(f"models:/{INDEX}@champion")


@pytest.mark.slow
def test_damaged_encoders_are_refused_before_they_are_parsed(store: str, tiny_package: Path, tmp_path: Path) -> None:
    register(Registry(), tiny_package)
    assert load_encoders("models:/cots-encoders/1").dim == 16
    version = find_local_version("models:/cots-encoders/1")
    assert version is not None
    [weights] = version.folder.glob("artifacts/*/model.safetensors")
    weights.write_bytes(b"other bytes")
    with pytest.raises(BadInput, match="models:/cots-encoders/1 is damaged, its files are not those that were"):
        load_encoders("models:/cots-encoders/1")
    with pytest.raises(BadInput, match="is damaged, its artifacts are not those of artifacts.sha256"):
        mlflow.pyfunc.load_model(str(version.folder))
    folder = shutil.copytree(tiny_package / "index", tmp_path / "index")
    (folder / "artifacts/index/items.parquet").write_bytes(b"other bytes")
    with pytest.raises(BadInput, match="is damaged, its artifacts are not those of artifacts.sha256"):
        mlflow.pyfunc.load_model(str(folder))


@pytest.mark.slow
def test_the_code_in_a_model_folder_is_not_run_by_who_searches_or_serves_it(tiny_package: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_package / "index", tmp_path / "index")
    files = list(folder.rglob("*.py"))
    for file in files:
        file.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n" + file.read_text())
    with open_search(str(folder)) as search:
        assert search.search(["a red square"], k=1, media="any")
    assert LoadedVersion.load(resolve(str(folder))).search
    assert files
    assert not (tmp_path / "ran").exists()
    mlflow.pyfunc.load_model(str(folder))  # which does run it
    assert (tmp_path / "ran").exists()
