"""`cots data` in a real project: DVC brings its data up to date, MLflow deploys the index without the picture."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cots.serving.registry import Registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def cots(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cots", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))


@pytest.mark.usefixtures("squares_champion")
def test_a_picture_is_taken_out_of_data_and_index_and_stays_out() -> None:
    assert cots("registry", "refresh").returncode == 0
    registry = Registry()
    assert "red48.png" in registry.kept(2).items()

    done = cots("data", "withdraw", "red48.png", "--reason", "its owner asked")
    assert done.returncode == 0, done.stderr
    assert "cots-index version 3 registered; it is the champion" in done.stdout
    assert registry.kept(3).items() == registry.kept(2).items() - {"red48.png"}
    back = cots("registry", "rollback", "--reason", "x")
    assert (back.returncode, "holds withdrawn red48.png" in back.stderr) == (2, True)

    again = cots("registry", "refresh")
    assert "nothing new" in again.stdout
    known = cots("data", "lineage", "red48.png", "1").stdout.splitlines()
    assert [line.split() for line in known[1:]] == [["3", "1", "-"], ["2", "1", "red48.png"], ["1", "1", "-"]]


def test_an_unknown_picture_withdraws_nothing(squares_champion: Path) -> None:
    assert cots("registry", "refresh").returncode == 0
    before = (squares_champion / "withdrawn.csv").read_bytes()
    done = cots("data", "withdraw", "nobody.png", "red48.png", "--reason", "x")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no sample nobody.png: neither")
    assert (squares_champion / "withdrawn.csv").read_bytes() == before
