"""One run at a time in a folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cots.errors import RunFailed
from cots.exclusive_run import HOLDER, LOCK, exclusive_run
from tests.conftest import Cots

COMMAND = "from cots.exclusive_run import exclusive_run\nwith exclusive_run('inner'): print('done')"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_command_of_the_run_goes_on_and_one_beside_it_is_told_who_holds_the_folder() -> None:
    with exclusive_run("nightly"):
        inner = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, check=False)
        outside = {name: value for name, value in os.environ.items() if name != HOLDER}
        beside = subprocess.run(
            [sys.executable, "-c", COMMAND], capture_output=True, text=True, check=False, env=outside
        )
    assert inner.stdout == "done\n", inner.stderr
    assert f"RunFailed: {Path.cwd()} is in use by run nightly (process " in beside.stderr


@pytest.mark.parametrize("verb", ["publish", "refresh"])
def test_neither_a_package_nor_an_index_is_published_beside_another_run(
    verb: str, cots: Cots, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("params.yaml").write_text("")
    with exclusive_run("nightly"):
        monkeypatch.delenv(HOLDER)  # as in a shell beside it
        code, out, err = cots("registry", verb)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith(f"error: {Path.cwd()} is in use by run nightly (process ")


def test_the_folder_is_free_afterwards_whatever_the_file_says() -> None:
    with pytest.raises(RunFailed, match="itself"), exclusive_run("nightly"):
        raise RunFailed("itself")
    LOCK.write_text('{"run": "cut')
    with exclusive_run("hourly"):
        assert "hourly" in LOCK.read_text()
