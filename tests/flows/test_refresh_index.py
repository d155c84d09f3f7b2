"""The flow adds new images to the deployed index without training."""

import subprocess
from pathlib import Path

import pytest
from PIL import Image

from cots.registry.registry import Registry
from tests.flows.conftest import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run_flow(project: Path, server: Server, store: str) -> tuple[str, str]:
    """Run the flow; return its final message and its report."""
    environment = server.environment | {"MLFLOW_TRACKING_URI": store}
    command = [server.python, "-m", "cots.flows.refresh_index"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = server.runs("refresh-index")[0]
    return run["state"]["message"], server.page(run["id"])


def test_new_images_are_indexed_by_the_deployed_encoders_once(
    squares_champion: Path, server: Server, store: str
) -> None:
    message, page = run_flow(squares_champion, server, store)
    assert message == "cots-index version 2 registered; it is the champion (same encoders as the champion)"
    assert "| prepare | ran |" in page

    Image.new("RGB", (64, 40), "purple").save(squares_champion / "pictures" / "new.png")
    with (squares_champion / "pictures" / "captions.csv").open("a") as table:
        table.write("new.png,something new,test\n")
    message, _ = run_flow(squares_champion, server, store)
    assert message.startswith("cots-index version 3 registered")
    registry = Registry()
    assert registry.get_artifacts(3).load_item_ids() - registry.get_artifacts(2).load_item_ids() == {"new.png"}
    assert registry.get_champion().encoders == 1
    assert not (squares_champion / "models").exists()

    message, _ = run_flow(squares_champion, server, store)
    assert message.endswith("nothing new: the champion's index holds the current images")
    assert [info.version for info in registry.list_versions()] == [3, 2, 1]
