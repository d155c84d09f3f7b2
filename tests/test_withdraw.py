"""Withdrawn samples leave the deployed index at once, whatever else is missing, running or refused."""

import json
import shutil
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest

from cots.config.params import Params
from cots.data.manifest import SCHEMA, write_table
from cots.data.withdrawn import read_withdrawn
from cots.errors import BadInput, RunFailed
from cots.exclusive_run import HOLDER, exclusive_run
from cots.refresh import refresh
from cots.registry.client import INDEX
from cots.registry.packaged import open_search
from cots.registry.promotions import PROMOTIONS
from cots.registry.registry import Registry
from cots.withdraw import deploy_without_withdrawn
from tests.conftest import Cots
from tests.deployed import add_version_without_files, aliases, measured, register

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture
def registry(store: str, tiny_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry in which `tiny_package` is version 1, and a folder with an empty list of withdrawn samples."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "withdrawn.csv", tmp_path)
    registry = Registry()
    register(registry, tiny_package)
    return registry


def search(version: int, media: str) -> dict[str, tuple[float, bytes]]:
    """Every result for a text: by caption its score, and the thumbnail if it is an image."""
    with open_search(f"models:/{INDEX}/{version}") as deployed:
        [results] = deployed.search(["a red square"], k=100, media=media)
        images = [image.tobytes() if media == "any" else b"" for image in deployed.engine.result_images(results)]
        return {hit["captions"][0]: (hit["score"], image) for hit, image in zip(results, images, strict=True)}


def test_what_is_left_is_found_as_before(registry: Registry) -> None:
    registry.withdraw({"red": "its owner asked"})
    assert deploy_without_withdrawn() == 2
    for media in ("any", "text"):
        before, after = search(1, media), search(2, media)
        del before["a red square"]
        assert after == before
    assert aliases(INDEX) == {"champion": 2, "previous": 1}
    assert registry.list_promotions()[-1].why == "without withdrawn samples: red"
    with pytest.raises(BadInput, match="version 1 contains withdrawn samples .red.: run `cots registry refresh`"):
        registry.rollback(why="back")
    assert deploy_without_withdrawn() is None
    assert not list(Path("runs").iterdir())
    mlflow.MlflowClient().delete_registered_model_alias(INDEX, "champion")  # services go on with what they have loaded
    assert deploy_without_withdrawn() == 2
    assert aliases(INDEX) == {"champion": 2, "previous": 1}


def test_the_index_is_the_one_that_a_refresh_without_the_sample_builds(
    registry: Registry, tiny_package: Path, tiny_data: Path
) -> None:
    shutil.copytree(tiny_data, "data")
    shutil.copytree(tiny_package.parent / "reports", "reports")
    params = Params.load(ROOT / "params.yaml")
    assert refresh(params)
    rows = pq.read_table("data/manifest.parquet").to_pylist()
    kept = [row for row in rows if row["split"] != "val"]
    registry.withdraw({row["id"]: "their owner asked" for row in rows if row not in kept})
    assert deploy_without_withdrawn() == 3
    write_table(Path("data/manifest.parquet"), kept, SCHEMA)
    again = refresh(params)
    assert again
    assert (again.version, again.new, again.champion) == (3, False, True)
    assert refresh(params) is None


def test_where_too_few_vectors_are_left_for_the_kind_of_index_the_rest_is_searched_exactly(
    store: str, tiny_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package = shutil.copytree(tiny_package, tmp_path / "package")
    params = json.loads((package / "evidence/params.json").read_text())
    params["index"]["factory"] = "IVF6,Flat"  # as many lists as items: one less cannot be trained
    (package / "evidence/params.json").write_text(json.dumps(params))
    registry = Registry()
    register(registry, package)
    registry.withdraw({"red": "its owner asked"})
    assert deploy_without_withdrawn() == 2
    assert registry.get_artifacts(2).load_lineage()["index"]["kind"] == "Flat"
    assert len(search(2, "any")) == 5


def test_the_last_sample_of_an_index_stays_served_and_the_error_says_so(registry: Registry) -> None:
    registry.withdraw(dict.fromkeys(registry.get_artifacts(1).load_item_ids(), "all"))
    with pytest.raises(RunFailed, match="still served by cots-index version 1: its index has no other samples"):
        deploy_without_withdrawn()


def test_a_run_that_holds_the_folder_and_old_versions_without_files_do_not_hinder(
    registry: Registry, cots: Cots, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_version_without_files()
    with exclusive_run("nightly"):
        monkeypatch.delenv(HOLDER)
        code, out, err = cots("data", "withdraw", "red", "--reason", "its owner asked")
    assert (code, err) == (0, "")
    assert read_withdrawn(Path("withdrawn.csv")) == {"red": "its owner asked"}
    assert "cots-index version 3 is the champion" in out
    assert [line.split() for line in out.splitlines()[-2:]] == [
        ["2", *["files", "are", "missing"] * 2],
        ["1", "-", "red"],
    ]


def test_neither_the_gate_nor_a_failed_validation_keeps_a_sample_served(registry: Registry, cots: Cots) -> None:
    Path("params.yaml").write_text("gate: {max_latency_ms: 1.0e-9, min_recall: 1.0}\n")
    summary = Path("reports/validation/summary.json")
    summary.parent.mkdir(parents=True)
    summary.write_text(json.dumps({"success": False, "overview": {}, "checks": []}))
    code, out, err = cots("data", "withdraw", "red", "--reason", "its owner asked")
    assert (code, err) == (0, "")
    assert "cots-index version 2 is the champion" in out
    assert aliases(INDEX) == {"champion": 2, "previous": 1}
    assert registry.get_artifacts(1).load_item_ids() - registry.get_artifacts(2).load_item_ids() == {"red"}


def test_where_the_champions_files_are_lost_the_sample_is_listed_and_said_to_be_served(
    registry: Registry, cots: Cots
) -> None:
    add_version_without_files()
    mlflow.MlflowClient().set_registered_model_alias(INDEX, "champion", "2")
    code, _, err = cots("data", "withdraw", "red", "--reason", "its owner asked")
    assert code == 1
    assert err.startswith("error: withdrawn samples are still served by cots-index version 2: ")
    assert err.count("\n") == 1
    assert read_withdrawn(Path("withdrawn.csv")) == {"red": "its owner asked"}
    assert registry.find_withdrawn(1) == ["red"]


def test_where_every_deployed_version_was_deleted_a_service_may_go_on_with_one(
    registry: Registry, other_package: Path, cots: Cots
) -> None:
    assert register(registry, measured(other_package, Path("worse"), recall=20.0)).version == 2
    mlflow.MlflowClient().delete_model_version(INDEX, "1")
    for _ in range(2):
        code, out, err = cots("data", "withdraw", "red", "--reason", "its owner asked")
        assert code == 1
        assert "withdrawn.csv names red" in out
        assert err.startswith("error: withdrawn samples may still be served: every version of cots-index that was dep")
        assert err.endswith("; then repeat the command\n")
    assert aliases(INDEX) == {"challenger": 2}


def test_where_nothing_was_ever_deployed_nothing_serves_the_sample(
    registry: Registry, tiny_data: Path, cots: Cots
) -> None:
    shutil.copytree(tiny_data, "data")
    mlflow.MlflowClient().delete_registered_model(INDEX)
    mlflow.MlflowClient().delete_registered_model(PROMOTIONS)
    code, out, err = cots("data", "withdraw", "test-image-red", "--reason", "its owner asked")
    assert (code, err) == (0, "")
    assert "no deployed index has any of them" in out


def test_without_a_registry_the_sample_is_listed_and_the_error_asks_to_repeat(
    registry: Registry, tiny_data: Path, cots: Cots, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_data, "data")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, out, err = cots("data", "withdraw", "test-image-red", "--reason", "its owner asked")
    assert code == 1
    assert "copies in data: until `dvc repro`, then `dvc gc --workspace`" in out
    assert err.startswith("error: test-image-red may still be served: no MLflow server at http://127.0.0.1:9")
    assert err.endswith("then repeat the command\n")
    assert list(read_withdrawn(Path("withdrawn.csv"))) == ["test-image-red"]
    code, out, err = cots("data", "withdraw", "red", "--reason", "its owner asked")  # is it an id at all?
    assert (code, out) == (1, "")
    assert err.startswith("error: nothing is withdrawn yet: no MLflow server at http://127.0.0.1:9")
    assert err.endswith("then repeat the command\n")
    assert list(read_withdrawn(Path("withdrawn.csv"))) == ["test-image-red"]


def test_a_registry_that_goes_down_half_way_is_told_with_what_to_do(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.withdraw({"red": "its owner asked"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        RunFailed, match="^withdrawn samples may still be served: no MLflow .* then repeat the command$"
    ):
        deploy_without_withdrawn()


def test_an_id_that_no_version_and_no_data_knows_changes_nothing(registry: Registry, cots: Cots) -> None:
    before = Path("withdrawn.csv").read_bytes()
    code, _, err = cots("data", "withdraw", "red", "nobody", "--reason", "x")
    assert (code, err.splitlines()) == (
        2,
        ["error: no sample nobody: it is neither in data/manifest.parquet nor in a registered version"],
    )
    assert Path("withdrawn.csv").read_bytes() == before
    assert registry.find_withdrawn(1) == []
