"""`cots data` in a real project: DVC brings its data up to date, MLflow deploys the index without the picture."""

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
    """Run the command line in a process of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [fork_python, "-m", "cots", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))

    return run


@pytest.fixture(scope="module")
def refreshed(
    cots: Cots, tmp_path_factory: pytest.TempPathFactory, empty_store: Path, tiny_package: Path, fork_python: str
) -> Iterator[Path]:
    """A project of plain squares, in which the process stands, after `cots registry refresh`."""
    folder = squares_project(tmp_path_factory.mktemp("squares") / "project", tiny_package, fork_python)
    with tracked_in(Path(shutil.copy(empty_store, folder.parent))), chdir(folder):
        publish(Params.load())
        assert cots("registry", "refresh").returncode == 0
        yield folder


@pytest.mark.usefixtures("refreshed")
def test_a_picture_is_taken_out_of_data_and_index_and_stays_out(cots: Cots) -> None:
    registry = Registry()
    assert "red48.png" in registry.get_artifacts(2).load_item_ids()

    done = cots("data", "withdraw", "red48.png", "--reason", "its owner asked")
    assert done.returncode == 0, done.stderr
    assert "cots-index version 3 registered; it is the champion" in done.stdout
    assert registry.get_artifacts(3).load_item_ids() == registry.get_artifacts(2).load_item_ids() - {"red48.png"}
    back = cots("registry", "rollback", "--reason", "x")
    assert (back.returncode, "contains withdrawn samples (red48.png)" in back.stderr) == (2, True)

    again = cots("registry", "refresh")
    assert "nothing new" in again.stdout
    known = cots("data", "lineage", "red48.png", "1").stdout.splitlines()
    assert [line.split() for line in known[1:]] == [["3", "1", "-"], ["2", "1", "red48.png"], ["1", "1", "-"]]


def test_an_unknown_picture_withdraws_nothing(refreshed: Path, cots: Cots) -> None:
    before = (refreshed / "withdrawn.csv").read_bytes()
    done = cots("data", "withdraw", "nobody.png", "blue48.png", "--reason", "x")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no sample nobody.png: it is neither")
    assert (refreshed / "withdrawn.csv").read_bytes() == before
