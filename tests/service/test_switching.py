"""The champion changes while the service answers."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cots.digests import content_digest
from cots.registry.client import INDEX

from .conftest import Champion, Served, serving

pytestmark = pytest.mark.slow
URI = "models:/cots-index@champion"


def answering(served: Served) -> Any:
    return served.client.get("/readyz").json()["versions"]["index"]["version"]


def test_the_registrys_tags_are_the_answers_lineage(champion: Champion, tiny_package: Path) -> None:
    champion.move(champion.register(tiny_package / "index"))
    with serving(URI) as served:
        answer = served.search(text="a red square", k=1)
        assert answer["versions"]["index"] == {"name": "cots-index", "version": "1"}
        assert answer["versions"]["encoders"]["version"] == "10"
        assert served.client.get(answer["results"][0]["lineage"]).json()["git_commit"] == "commit-1"


def test_what_the_new_version_no_longer_holds_is_not_shown_from_the_old_one_either(
    champion: Champion, tiny_package: Path, tmp_path: Path
) -> None:
    without = shutil.copytree(tiny_package / "index", tmp_path / "index")
    path = without / "artifacts" / "index" / "items.parquet"
    items = pd.read_parquet(path)
    items.replace({"id": {items["id"][0]: "another"}}).to_parquet(path)
    versions = [champion.register(folder) for folder in (tiny_package / "index", without)]
    champion.move(versions[0])
    with serving(URI) as served:
        assert served.client.get("/preview/1/0/0").status_code == 200
        champion.move(versions[1])
        served.until(lambda: answering(served) == versions[1])
        assert [served.client.get(f"/preview/1/{row}/0").status_code for row in (0, 1)] == [404, 200]
        assert served.client.get("/lineage/1/0").status_code == 404
        assert served.client.get("/preview/2/0/0").status_code == 200


def test_under_load_no_query_fails_and_no_answer_mixes_versions(
    champion: Champion, tiny_package: Path, other_package: Path
) -> None:
    versions = [champion.register(package / "index") for package in (tiny_package, other_package)]
    champion.move("1")
    stop = threading.Event()
    with serving(URI) as served:
        expected = {}
        for version in versions:
            champion.move(version)
            served.until(lambda version=version: answering(served) == version)  # type: ignore[misc]
            expected[version] = served.search(text="a red square", k=6)

        def ask() -> list[dict[str, Any]]:
            responses = []
            while not stop.is_set():
                responses.append(served.search(text="a red square", k=6))
            return responses

        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(ask) for _ in range(8)]
            for turn in range(6):
                champion.move(versions[turn % 2])
                served.until(lambda turn=turn: answering(served) == versions[turn % 2])  # type: ignore[misc]
            stop.set()
            answers = [answer for client in clients for answer in client.result()]
        metrics = served.client.get("/metrics").text
    assert {answer["versions"]["index"]["version"] for answer in answers} == set(versions)
    for answer in answers:
        reference = expected[answer["versions"]["index"]["version"]]
        assert answer["versions"] == reference["versions"]
        assert [hit["preview"] for hit in answer["results"]] == [hit["preview"] for hit in reference["results"]]
        scores, known = ([hit["score"] for hit in response["results"]] for response in (answer, reference))
        assert scores == pytest.approx(known, abs=0.01)
    assert expected["1"]["versions"]["encoders"] != expected["2"]["versions"]["encoders"]
    assert "cots_switches_total 7.0" in metrics


def test_previews_of_the_version_before_stay_readable(
    champion: Champion, tiny_package: Path, other_package: Path
) -> None:
    for package in (tiny_package, other_package):
        champion.register(package / "index")
    champion.move("1")
    with serving(URI) as served:
        [before] = served.search(text="a red square", k=1)["results"]
        champion.move("2")
        served.until(lambda: answering(served) == "2")
        assert served.client.get(before["preview"]).status_code == 200
        assert served.client.get(before["lineage"]).json()["versions"]["index"]["version"] == "1"


def test_a_broken_champion_is_reported_and_the_previous_version_keeps_answering(
    champion: Champion, tiny_package: Path, tmp_path: Path
) -> None:
    champion.register(tiny_package / "index")
    broken = shutil.copytree(tiny_package / "index", tmp_path / "broken")
    whole = (broken / "artifacts" / "index" / "index.faiss").read_bytes()
    (broken / "artifacts" / "index" / "index.faiss").write_bytes(whole[: len(whole) // 2])
    champion.register(broken)
    champion.move("1")
    with serving(URI) as served:
        champion.move("2")
        served.until(lambda: served.client.get("/readyz").json()["trouble"] is not None)
        ready = served.client.get("/readyz")
        assert ready.status_code == 200
        assert "is damaged" in ready.json()["trouble"]
        assert answering(served) == "1"
        assert served.search(text="a red square")["versions"]["index"]["version"] == "1"
        assert "cots_failed_loads_total 1.0" in served.client.get("/metrics").text
        champion.move("1")
        served.until(lambda: served.client.get("/readyz").json()["trouble"] is None)


@pytest.mark.parametrize("file", ["index.faiss", "items.parquet", "model.safetensors"])
def test_a_champion_whose_files_changed_after_it_was_registered_never_answers(
    champion: Champion, tiny_package: Path, tmp_path: Path, file: str
) -> None:
    """Bytes that FAISS, Parquet and safetensors would read without an error, or die of."""
    changed = shutil.copytree(tiny_package / "index", tmp_path / "changed")
    versions = [champion.register(tiny_package / "index"), champion.register(changed)]
    for version in versions:
        champion.client.set_model_version_tag(INDEX, version, "content.digest", content_digest(changed))
    [path] = changed.rglob(file)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    champion.move("1")
    with serving(URI) as served:
        champion.move("2")
        served.until(lambda: served.client.get("/readyz").json()["trouble"] is not None)
        assert "models:/cots-index/2 is damaged" in served.client.get("/readyz").json()["trouble"]
        assert answering(served) == "1"


def test_a_registry_that_goes_away_disturbs_nothing_once_a_version_is_loaded(
    champion: Champion, tiny_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion.move(champion.register(tiny_package / "index"))
    with serving(URI) as served:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        served.until(lambda: served.client.get("/readyz").json()["trouble"] is not None)
        assert "no MLflow server at http://127.0.0.1:9" in served.client.get("/readyz").json()["trouble"]
        [first] = served.search(text="a red square", k=1)["results"]
        assert served.client.get(first["preview"]).status_code == 200


def test_strangers_do_not_read_the_registrys_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgress://cots:S3CRET@db.internal/mlflow")
    with serving(URI, ready=False) as served:
        served.until(lambda: "postgress://db.internal/mlflow" in served.client.get("/readyz").text)
        assert "S3CRET" not in served.client.get("/readyz").text


def test_before_there_is_a_champion_the_service_lives_and_says_that_it_waits(
    champion: Champion, tiny_package: Path
) -> None:
    with serving(URI, ready=False) as served:
        assert served.client.get("/healthz").json() == {"alive": True}
        served.until(lambda: "no model" in served.client.get("/readyz").text)
        for refused in (served.client.get("/readyz"), served.client.post("/search", json={"text": "a"})):
            assert refused.status_code == 503
            assert refused.json()["error"].startswith("no version answers yet: no model models:/cots-index@champion")
        champion.move(champion.register(tiny_package / "index"))
        served.until(lambda: served.client.get("/readyz").status_code == 200)
        assert served.search(text="a red square")["results"]


def test_the_files_of_a_version_may_be_removed_while_it_answers(
    champion: Champion, tiny_package: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_package / "index", tmp_path / "copy")
    champion.move(champion.register(copy))
    with serving(URI) as served:
        shutil.rmtree(copy)
        [first] = served.search(text="a red square", k=1)["results"]
        assert served.client.get(first["preview"]).status_code == 200
