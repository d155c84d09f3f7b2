"""Samples are withdrawn over HTTP, behind a token, by the command that people use."""

import asyncio
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cots.data.withdrawn import read_withdrawn
from cots.errors import BadInput
from cots.files import locked
from cots.registry.registry import Registry
from cots.service.client import Client, RequestFailed
from cots.service.errors import RequestRefused
from cots.service.withdrawal import Withdrawal
from tests.deployed import register

from .conftest import LIMITS, Served, serving

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SECRET = "a-secret-of-enough-characters"


@pytest.fixture
def project(store: str, tiny_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork_python: str) -> Path:
    """A folder with an empty list of withdrawn samples, and a registry in which `tiny_package` is version 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", fork_python)
    shutil.copy(ROOT / "withdrawn.csv", tmp_path)
    register(Registry(), tiny_package)
    return tmp_path


def test_withdrawn_samples_are_served_no_more(project: Path) -> None:
    with (
        serving("models:/cots-index@champion", token=SECRET, project=project) as served,
        Client(served.url, token=SECRET, timeout=120) as client,
    ):
        before = {hit.id for hit in client.results("a red square", k=100)}
        with pytest.raises(RequestFailed, match="no sample nobody: it is neither") as refused:
            client.withdraw(["red", "nobody"], "its owner asked")
        assert refused.value.status == 422
        assert read_withdrawn(project / "withdrawn.csv") == {}
        report = client.withdraw(["red"], "its owner asked").report
        assert "cots-index version 2 is the champion" in report
        assert read_withdrawn(project / "withdrawn.csv") == {"red": "its owner asked"}
        served.until(lambda: client.ready().versions.index.version == "2")
        assert {hit.id for hit in client.results("a red square", k=100)} == before - {"red"}
        with Client(served.url) as stranger, pytest.raises(RequestFailed, match="token required"):
            stranger.withdraw(["blue"], "because")


def test_withdrawals_that_wait_for_each_other_take_no_place_of_a_query(project: Path) -> None:
    limits = replace(LIMITS, in_flight=1)
    (project / "runs").mkdir()
    with (
        serving("models:/cots-index@champion", token=SECRET, project=project, limits=limits) as served,
        Client(served.url, token=SECRET, timeout=120) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        with locked(project / "runs"):  # as another withdrawal holds it
            waiting = thread.submit(client.withdraw, ["red"], "its owner asked")
            served.until(lambda: "red" in read_withdrawn(project / "withdrawn.csv"), seconds=120)
            assert client.results("a red square", k=1)
            with pytest.raises(RequestFailed, match="1 withdrawals are being answered: try again") as refused:
                client.withdraw(["blue"], "its owner asked")
            assert refused.value.status == 429
        assert "cots-index version 2 is the champion" in waiting.result().report


def test_a_service_without_a_project_changes_nothing(served: Served) -> None:
    with Client(served.url) as client, pytest.raises(RequestFailed, match="this service changes no data") as refused:
        client.withdraw(["red"], "because")
    assert refused.value.status == 403


def test_a_command_that_does_not_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestRefused, match="nothing is withdrawn: the command does not start: No such file"):
        asyncio.run(Withdrawal(tmp_path / "gone")(["red"], "because"))


def test_a_command_without_a_place_for_its_output_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(RequestRefused, match="nothing is withdrawn: the command does not start: No such file"):
        asyncio.run(Withdrawal(tmp_path)(["red"], "because"))


def test_a_project_needs_a_token_and_its_list(mixed_package: Path, tmp_path: Path) -> None:
    for token, message in (
        (None, "set COTS_TOKEN"),
        (SECRET, "is not the folder of a project: it has no withdrawn.csv"),
    ):
        with (
            pytest.raises(BadInput, match=message),
            serving(mixed_package, limits=LIMITS, token=token, project=tmp_path),
        ):
            pass
