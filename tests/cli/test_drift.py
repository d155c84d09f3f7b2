"""`cots drift` over a registry, a manifest and a log of queries."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cots.cli.drift import digest_of_training_data
from cots.data.manifest import SCHEMA, write_table
from cots.errors import BadInput
from cots.models.dual_encoder import DualEncoder
from cots.registry.versions import VersionInfo
from tests.conftest import Cots
from tests.deployed import FOREIGN, deploy, write_log

pytestmark = pytest.mark.slow


@pytest.fixture
def deployed(
    tmp_path: Path, store: str, tiny_data: Path, tiny_package: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project whose champion learnt from `tiny_data`, and a log of queries in other words."""
    project = tmp_path / "project"
    deploy(project, data=tiny_data, model=tiny_model, source=tiny_package.parent)
    write_log(project / "queries/1.jsonl", DualEncoder.load(tiny_model), FOREIGN)
    monkeypatch.chdir(project)
    return project


def test_the_verb_finds_what_the_champion_learnt_from_and_tells_drift_first(deployed: Path, cots: Cots) -> None:
    code, out, err = cots("drift", "--queries", "queries")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "drifted: true"
    assert "queries left out: 1 unreadable" in out
    result = json.loads((deployed / "reports/drift/summary.json").read_text())
    assert result["drifted"]
    assert result["learnt from"] == result["data"]
    assert result["queries left out"] == {"unreadable": 1}
    assert cots("drift")[1].splitlines()[0] == "drifted: false"


def test_data_whose_past_is_lost_must_be_named(deployed: Path, cots: Cots, tmp_path: Path) -> None:
    shutil.copy(deployed / "data/manifest.parquet", tmp_path / "before.parquet")
    rows = pq.read_table(deployed / "data/manifest.parquet").to_pylist()
    write_table(deployed / "data/manifest.parquet", rows[::-1], SCHEMA)
    code, _, err = cots("drift")
    assert code == 2
    assert "nor in DVC's cache: give it with --reference" in err
    assert len(err.splitlines()) == 1
    assert cots("drift", "--reference", tmp_path / "before.parquet")[0] == 0


def test_a_model_folder_does_not_say_what_it_learnt_from(deployed: Path, cots: Cots) -> None:
    code, _, err = cots("drift", "--model", "package/encoders")
    assert (code, err.splitlines()) == (
        2,
        ["error: the training data of package/encoders are not known: give their manifest with --reference"],
    )


def version(number: int, encoders: str, data: str, *aliases: str) -> VersionInfo:
    tags = {"encoder.digest": encoders, "manifest.digest": data}
    return VersionInfo(number, number, aliases, datetime(2026, 11, 1, tzinfo=UTC), tags)


def test_an_index_with_new_images_has_the_training_data_of_its_encoders() -> None:
    versions = [
        version(4, "b", "four"),
        version(3, "a", "three", "champion"),
        version(2, "a", "two"),
        version(1, "c", "one"),
    ]
    assert digest_of_training_data(versions) == "two"
    with pytest.raises(BadInput, match="no version is deployed"):
        digest_of_training_data(versions[2:])
