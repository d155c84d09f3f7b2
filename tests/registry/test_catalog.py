"""Reading the registry's SQLite file gives the same as MLflow."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from cots.digests import content_digest
from cots.registry import catalog
from cots.registry.client import ENCODERS, INDEX
from cots.registry.registry import Registry
from cots.tracking.store import connect
from tests.conftest import Cots, tracked_in
from tests.deployed import register

pytestmark = pytest.mark.slow


@pytest.fixture
def registry(registry_of_two: Registry) -> Registry:
    """Two versions, with a promotion and a rollback."""
    registry_of_two.promote(1, why="first")
    registry_of_two.rollback(why="back")
    return registry_of_two


def test_versions_and_promotions_are_those_that_mlflow_returns(registry: Registry) -> None:
    assert [version.version for version in catalog.list_versions()] == [2, 1]
    assert catalog.list_versions() == registry.list_versions()
    assert [move.why for move in catalog.list_promotions()][-2:] == ["first", "back"]
    assert catalog.list_promotions() == registry.list_promotions()


@pytest.mark.usefixtures("registry")
def test_a_deleted_version_is_listed_no_more() -> None:
    connect().delete_model_version(INDEX, "1")
    assert [version.version for version in catalog.list_versions()] == [2]


@pytest.mark.usefixtures("registry")
def test_the_files_of_a_version_are_found_where_they_are() -> None:
    champion = catalog.find_local_version(f"models:/{INDEX}@champion")
    assert champion is not None
    assert (champion.folder / "MLmodel").is_file()
    assert content_digest(champion.folder) == champion.tags["content.digest"]
    assert (
        champion == catalog.find_local_version(f"models:/{INDEX}/2") != catalog.find_local_version(f"models:/{INDEX}/1")
    )
    assert catalog.find_local_version(f"models:/{ENCODERS}/1") is not None
    unknown = [f"models:/{INDEX}/3", f"models:/{INDEX}@nobody", f"models:/{INDEX}/best", "models:/other/1", "package"]
    assert [catalog.find_local_version(uri) for uri in unknown] == [None] * 5


def test_the_folder_of_a_project_may_have_any_name(
    empty_store: Path, tiny_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cots: Cots
) -> None:
    project = tmp_path / "my pröject #1 100% [x] $HOME"
    project.mkdir()
    monkeypatch.chdir(project)
    shutil.copy(empty_store, "mlflow.db")
    with tracked_in(Path("mlflow.db")):
        register(Registry(), tiny_package)
        local = catalog.find_local_version(f"models:/{INDEX}@champion")
        assert local is not None
        assert local.folder.is_relative_to(project)
        code, out, err = cots("search", "a red square", "--k", 1)
        assert (code, err) == (0, "")
        assert out.splitlines()[1].split()[0] == "1"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "sqlite:////nowhere/mlflow.db", "postgresql://a@b/c"])
def test_a_registry_that_is_no_file_here_is_left_to_mlflow(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert catalog.read_model(INDEX) is None


@pytest.mark.usefixtures("registry")
def test_a_registry_beside_the_tracking_store_is_left_to_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert catalog.read_model(INDEX) is not None
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:1")
    assert catalog.read_model(INDEX) is None


def test_a_file_of_another_form_is_left_to_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    file.write_text("no database " * 100)
    assert catalog.read_model(INDEX) is None
    file.unlink()
    database = sqlite3.connect(file)
    database.execute("create table model_versions (name text)")
    database.close()
    assert catalog.read_model(INDEX) is None
