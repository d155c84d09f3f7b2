"""An index of new images by the deployed encoders, and withdrawn images."""

import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from cots.config.params import Params
from cots.data.manifest import SCHEMA, write_table
from cots.errors import BadInput
from cots.files import write_json
from cots.refresh import refresh
from cots.registry.client import INDEX
from cots.registry.packaged import open_search
from cots.registry.registry import PublishResult, Registry
from tests.deployed import register

ROOT = Path(__file__).parents[1]


@pytest.fixture
def params() -> Params:
    return Params.load(ROOT / "params.yaml")


@pytest.fixture
def project(tmp_path: Path, tiny_package: Path, tiny_data: Path) -> Path:
    """A project whose data is not that of the package."""
    shutil.copytree(tiny_data, tmp_path / "data")
    shutil.copytree(tiny_package.parent / "reports", tmp_path / "reports")
    return tmp_path


def refreshed(params: Params, project: Path) -> PublishResult:
    result = refresh(params, project)
    assert result
    return result


def test_with_nothing_deployed_there_are_no_encoders_to_index_with(store: str, params: Params, project: Path) -> None:
    with pytest.raises(BadInput, match="no version of cots-index is deployed"):
        refresh(params, project)


@pytest.mark.slow
def test_new_images_give_a_new_index_of_the_same_encoders_once(
    store: str, params: Params, project: Path, tiny_package: Path
) -> None:
    registry = Registry()
    register(registry, tiny_package)
    before = registry.get_champion()
    published = refreshed(params, project)
    assert (published.version, published.new, published.champion) == (2, True, True)
    after = registry.get_champion()
    assert after.encoders == before.encoders == 1
    assert registry.get_artifacts(2).load_item_ids() == set(pd.read_parquet(project / "data/manifest.parquet")["id"])
    assert registry.get_artifacts(2).load_training_ids() == registry.get_artifacts(1).load_training_ids()
    assert after.lineage()["metrics"] == before.lineage()["metrics"]
    assert after.tags["manifest.digest"] != before.tags["manifest.digest"]
    with open_search(f"models:/{INDEX}@champion") as search:
        [results] = search.search(["a red square"], k=10, media="any")
    assert len(results) == 10
    assert refresh(params, project) is None
    assert [info.version for info in registry.list_versions()] == [2, 1]


@pytest.mark.slow
def test_a_parameter_that_changes_no_byte_of_the_index_is_tried_once(
    store: str, params: Params, project: Path, tiny_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(Registry(), tiny_package)
    assert refreshed(params, project).new
    index = params.index.model_copy(update={"thumbnail_size": 4000})  # no frame is larger than 128
    larger = params.model_copy(update={"index": index})
    again = refreshed(larger, project)
    assert (again.version, again.new) == (2, False)
    assert refresh(larger, project) is None
    assert refreshed(params.model_copy(update={"index": index.model_copy(update={"recall_queries": 3})}), project)


@pytest.mark.slow
def test_a_version_of_0_1_0_is_refreshed_and_compared_under_the_present_names(
    store: str, params: Params, project: Path, tiny_package: Path, tmp_path: Path
) -> None:
    package = shutil.copytree(tiny_package, tmp_path / "package-0.1.0")
    first = yaml.safe_load((ROOT / "tests/fixtures/v0_1/params.yaml").read_text())
    write_json(package / "evidence/params.json", {key: first[key] for key in first if key not in ("gate", "drift")})
    registry = Registry()
    register(registry, package)
    changed = params.model_copy(update={"index": params.index.model_copy(update={"thumbnail_size": 16})})
    assert refreshed(changed, project).version == 2
    assert registry.diff_versions(1, 2)["parameters"] == {"index.thumbnail_size": ("128", "16")}
    assert refresh(changed, project) is None


@pytest.mark.slow
def test_other_parameters_of_the_index_give_a_new_version_of_the_same_images(
    store: str, params: Params, project: Path, tiny_package: Path
) -> None:
    register(Registry(), tiny_package)
    refreshed(params, project)
    other = params.model_copy(update={"index": params.index.model_copy(update={"thumbnail_size": 16})})
    assert refreshed(other, project).version == 3
    assert int(mlflow.MlflowClient().get_model_version_by_alias(INDEX, "champion").version) == 3


@pytest.mark.slow
def test_a_refused_index_of_the_same_images_is_built_and_registered_once(
    store: str, params: Params, project: Path, tiny_package: Path
) -> None:
    register(Registry(), tiny_package)
    strict = params.model_copy(update={"gate": params.gate.model_copy(update={"max_latency_ms": 1e-9})})
    first = refreshed(strict, project)
    assert (first.version, first.new, first.champion) == (2, True, False)
    (project / "data/shards").rename(project / "elsewhere")  # nothing can be indexed
    second = refreshed(strict, project)
    assert second == replace(first, new=False)
    assert not (project / "runs/refresh").exists()
    (project / "elsewhere").rename(project / "data/shards")
    other = strict.model_copy(update={"index": params.index.model_copy(update={"thumbnail_size": 16})})
    assert (refreshed(other, project).version, refreshed(other, project).new) == (3, False)


@pytest.mark.slow
def test_after_a_withdrawal_the_refreshed_index_is_deployed_and_the_old_one_is_not(
    store: str, params: Params, project: Path, tiny_package: Path
) -> None:
    registry = Registry()
    register(registry, tiny_package)
    refreshed(params, project)
    registry.withdraw({"test-image-red": "its owner asked"})
    manifest = project / "data" / "manifest.parquet"
    rows = pq.read_table(manifest).to_pylist()
    write_table(manifest, [row for row in rows if row["split"] != "test"], SCHEMA)
    assert refreshed(params, project).version == 3
    assert "test-image-red" not in registry.get_artifacts(3).load_item_ids()
    with pytest.raises(BadInput, match="contains withdrawn samples .test-image-red"):
        registry.rollback(why="back")
