"""New pictures reach the deployed index by the flow, with no training."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cots.config import Params
from cots.serving.publishing import publish
from cots.serving.registry import Registry
from tests.deployed import squares_project
from tests.pipelines.conftest import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def project(tmp_path: Path, store: str, tiny_package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of plain squares, and a champion that learnt from other pictures."""
    folder = squares_project(tmp_path / "project", tiny_package)
    monkeypatch.chdir(folder)
    publish(Params.load())
    return folder


def refreshed(project: Path, server: Server, store: str) -> tuple[str, str]:
    """What the flow ended with, and its page."""
    environment = server.environment | {"MLFLOW_TRACKING_URI": store}
    command = [sys.executable, "-m", "pipelines.refresh_index"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = server.runs("refresh-index")[0]
    return run["state"]["message"], server.page(run["id"])


def test_new_pictures_are_indexed_by_the_deployed_encoders_once(project: Path, server: Server, store: str) -> None:
    message, page = refreshed(project, server, store)
    assert message == "cots-index version 2 registered; it is the champion (the encoders are the champion's)"
    assert "| prepare | ran |" in page

    Image.new("RGB", (64, 40), "purple").save(project / "pictures" / "new.png")
    with (project / "pictures" / "captions.csv").open("a") as table:
        table.write("new.png,something new,test\n")
    message, _ = refreshed(project, server, store)
    assert message.startswith("cots-index version 3 registered")
    registry = Registry()
    assert registry.kept(3).items() - registry.kept(2).items() == {"new.png"}
    assert registry.champion().encoders == 1
    assert not (project / "models").exists()

    message, _ = refreshed(project, server, store)
    assert message.endswith("nothing new: the champion's index holds the present pictures")
    assert [one.version for one in registry.versions()] == [3, 2, 1]
