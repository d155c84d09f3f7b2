"""MLflow's own server over a packaged index: `mlflow models serve --env-manager local`."""

import base64
import io
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.hits import up_to_rounding
from tests.servers import free_port, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # seconds, for a machine with other work


@pytest.fixture(scope="module")
def address(tiny_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running server, in a folder of its own, without this checkout in its path."""
    port = free_port()
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(tiny_package / "index"), *options]
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    url = f"http://127.0.0.1:{port}"
    with serving(command, answers=f"{url}/ping", folder=tmp_path_factory.mktemp("served"), environment=outside):
        yield url


def query_server(address: str, body: dict[str, Any]) -> list[list[dict[str, Any]]]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/invocations", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        predictions: list[list[dict[str, Any]]] = json.load(answer)["predictions"]
        return predictions


def encoded(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 32), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_texts_are_answered_each_with_the_number_of_results_that_is_asked_for(address: str) -> None:
    rankings = query_server(address, {"inputs": ["a red square", "blue"], "params": {"k": 3}})
    assert [[hit["rank"] for hit in results] for results in rankings] == [[1, 2, 3], [1, 2, 3]]
    assert rankings[0][0].keys() == {
        "rank",
        "score",
        "id",
        "captions",
        "media",
        "split",
        "row",
        "frame",
        "best_caption",
    }
    [alone] = query_server(address, {"inputs": ["a red square"], "params": {"k": 3}})
    for hit in [*rankings[0], *alone]:
        del hit["best_caption"]  # captions of an untrained model can be as near to a query as rounding
    assert rankings[0] == up_to_rounding(alone)


def test_an_image_in_base64_finds_itself(address: str) -> None:
    [results] = query_server(address, {"dataframe_records": [{"image": encoded("green")}], "params": {"k": 1}})
    assert results[0]["id"] == "green"
    assert results[0]["score"] == pytest.approx(1, abs=1e-3)


def test_texts_and_images_are_answered_in_one_table(address: str) -> None:
    rows = [["a red square", None, 2], [None, encoded("black"), 4], [None, encoded("blue"), 1]]
    table = {"columns": ["text", "image", "k"], "data": rows}
    rankings = query_server(address, {"dataframe_split": table})
    assert [len(results) for results in rankings] == [2, 4, 1]
    assert [results[0]["id"] for results in rankings[1:]] == ["black", "blue"]
    assert rankings[0] == up_to_rounding(query_server(address, {"inputs": ["a red square"], "params": {"k": 2}})[0])


def test_a_query_that_cannot_be_one_is_refused_with_its_reason_and_the_server_goes_on(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        query_server(address, {"dataframe_records": [{"text": "fine"}, {"text": "  "}]})
    message = refused.value.read().decode()
    assert "query 1: the text is blank" in message
    assert len(query_server(address, {"inputs": ["blue"]})) == 1
