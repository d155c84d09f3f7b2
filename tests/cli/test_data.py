"""`cots data` in a real project: DVC updates the data, and MLflow deploys an index without the withdrawn image."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from cots.config.params import Params
from cots.registry.publishing import publish
from cots.registry.registry import Registry
from tests.conftest import tracked_in
from tests.deployed import squares_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Cots = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def cots(fork_python: str) -> Cots:
    """Runs the command line in a process of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [fork_python, "-m", "cots", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))

    return run


@pytest.fixture(scope="module")
def refreshed(
    cots: Cots, tmp_path_factory: pytest.TempPathFactory, empty_store: Path, tiny_package: Path, fork_python: str
) -> Iterator[Path]:
    """A project of plain squares after `cots registry refresh`; it is the current folder."""
    folder = squares_project(tmp_path_factory.mktemp("squares") / "project", tiny_package, fork_python)
    with tracked_in(Path(shutil.copy(empty_store, folder.parent))), chdir(folder):
        publish(Params.load())
        refresh = cots("registry", "refresh")
        assert refresh.returncode == 0, refresh.stderr
        assert refresh.stdout.startswith(
            "cots-index version 2 registered; it is the champion"
        )  # what DVC says is below
        assert "Running stage 'prepare'" in refresh.stderr
        assert "dvc push" not in refresh.stderr
        yield folder


@pytest.mark.usefixtures("refreshed")
def test_a_withdrawn_image_leaves_data_and_index_and_stays_out(cots: Cots) -> None:
    registry = Registry()
    assert "red48.png" in registry.get_artifacts(2).load_item_ids()

    withdrawal = cots("data", "withdraw", "red48.png", "--reason", "its owner asked")
    assert withdrawal.returncode == 0, withdrawal.stderr
    assert "cots-index version 3 is the champion" in withdrawal.stdout
    assert registry.get_artifacts(3).load_item_ids() == registry.get_artifacts(2).load_item_ids() - {"red48.png"}
    rollback = cots("registry", "rollback", "--reason", "x")
    assert (rollback.returncode, "contains withdrawn samples (red48.png)" in rollback.stderr) == (2, True)

    refresh = cots("registry", "refresh")
    assert "cots-index version 3 was registered already" in refresh.stdout
    lineage = cots("data", "lineage", "red48.png", "1").stdout.splitlines()
    assert [line.split() for line in lineage[1:]] == [["3", "1", "-"], ["2", "1", "red48.png"], ["1", "1", "-"]]


def test_an_unknown_image_withdraws_nothing(refreshed: Path, cots: Cots) -> None:
    before = (refreshed / "withdrawn.csv").read_bytes()
    withdrawal = cots("data", "withdraw", "nobody.png", "blue48.png", "--reason", "x")
    assert withdrawal.returncode == 2
    assert withdrawal.stderr.splitlines()[-1].startswith("error: no sample nobody.png: it is neither")
    assert (refreshed / "withdrawn.csv").read_bytes() == before
