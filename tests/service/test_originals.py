"""Originals are given from the folder of the source: images that the index holds, and nothing else."""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cots.errors import BadInput
from cots.registry.registry import Registry
from cots.service.client import Client, RequestFailed
from cots.withdraw import deploy_without_withdrawn
from tests.conftest import COLOURS
from tests.deployed import register

from .conftest import LIMITS, PHOTO_IDS, Served, encoded, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def with_originals(package_of_photos: Path, photos: Path) -> Iterator[Served]:
    with serving(package_of_photos, source=photos) as served:
        yield served


def originals(served: Served) -> dict[str, str]:
    """Paths of the originals by id."""
    results = served.search(text="a", k=100)["results"]
    return {hit["id"]: hit["original"] for hit in results}


def test_an_original_is_the_file_as_it_is(with_originals: Served, photos: Path) -> None:
    paths = originals(with_originals)
    assert set(paths) == set(PHOTO_IDS)
    for name, media_type in (("red.png", "image/png"), ("sub/green.jpg", "image/jpeg"), ("in.png", "image/jpeg")):
        answer = with_originals.client.get(paths[name])
        assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
        assert answer.content == (photos / name).read_bytes()
        assert answer.headers["x-content-type-options"] == "nosniff"
    [hit] = with_originals.search(text="a", k=1, media="text")["results"]
    assert hit["original"] == f"/original/{hit['lineage'].split('/')[2]}/{hit['row']}"  # of the item that it describes
    with Client(with_originals.url) as client:
        [hit] = [hit for hit in client.search("a").results if hit.id == "red.png"]
        version = hit.lineage.split("/")[2]
        assert Image.open(io.BytesIO(client.original(version, hit.row))).size == (400, 300)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.png", "outside the data folder"),
        ("out.png", "outside the data folder"),
        ("text.png", "not a picture"),
    ],
)
def test_nothing_else_is_given(with_originals: Served, photos: Path, name: str, reason: str) -> None:
    answer = with_originals.client.get(originals(with_originals)[name])
    assert answer.status_code == 404
    assert answer.json()["error"].endswith(f"cannot be given: {reason}")
    assert str(photos) not in answer.text


@pytest.mark.parametrize("path", ["9", "0/../../red.png", "%2e%2e%2fred.png", "-1", "red.png"])
def test_no_path_in_a_request_reaches_a_file(with_originals: Served, path: str) -> None:
    version = originals(with_originals)["red.png"].split("/")[2]
    assert with_originals.client.get(f"/original/{version}/{path}").status_code in (404, 422)
    assert with_originals.client.get("/original/folder-000000000000/0").status_code == 404


def test_files_beyond_a_limit_or_gone_since_are_not_given(
    package_of_photos: Path, photos: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(photos, tmp_path / "source", symlinks=True)
    limits: dict[str, Any] = {"in_flight": 64, "seconds": 5.0}
    with serving(package_of_photos, source=folder, limits=type(LIMITS)(body=5_000, pixels=100_000, **limits)) as served:
        paths = originals(served)
        assert served.client.get(paths["red.png"]).json()["error"].endswith("too many pixels")
        assert served.client.get(paths["sub/green.jpg"]).status_code == 200
        (folder / "sub/green.jpg").write_bytes((folder / "sub/green.jpg").read_bytes() + bytes(5_000))
        assert served.client.get(paths["sub/green.jpg"]).json()["error"].endswith("too many bytes")
        (folder / "sub/green.jpg").unlink()
        assert served.client.get(paths["sub/green.jpg"]).json()["error"].endswith("no such file")
        os.mkfifo(folder / "sub/green.jpg")  # reading it would wait for ever
        assert served.client.get(paths["sub/green.jpg"]).json()["error"].endswith("no such file")
        shutil.rmtree(folder)  # as a drive that is taken away
        gone = served.client.get(paths["red.png"])
        assert (gone.status_code, gone.json()["error"].partition(": ")[2]) == (404, "No such file or directory")


def test_images_in_a_folder_below_are_found_and_videos_have_no_original(mixed_package: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "train-image-red").write_bytes(encoded("red"))
    with serving(mixed_package, source=tmp_path) as served:
        paths = originals(served)
        assert served.client.get(paths["train-image-red"]).content == encoded("red")
        video = next(hit for hit in served.search(text="a", k=100)["results"] if hit["media"] == "video")
        assert video["original"] is None
        refused = served.client.get(video["lineage"].replace("lineage", "original"))
        assert (refused.status_code, "has no image" in refused.text) == (404, True)


def test_without_a_source_and_without_the_token_nothing_is_given(
    served: Served, package_of_photos: Path, photos: Path
) -> None:
    [hit] = served.search(text="a", k=1, media="image")["results"]
    assert hit["original"] is None
    with Client(served.url) as client, pytest.raises(RequestFailed, match="start it with --source") as refused:
        client.original("folder-1", 0)
    assert refused.value.status == 403
    with serving(package_of_photos, source=photos, token="a-secret-of-enough-characters") as guarded:
        assert guarded.client.get("/original/folder-1/0").status_code == 401
    with (
        pytest.raises(BadInput, match="--source names the folder"),
        serving(package_of_photos, source=photos / "red.png"),
    ):
        pass


def test_a_withdrawn_image_has_no_original(
    store: str, tiny_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "source"
    folder.mkdir()
    for colour in COLOURS:
        (folder / colour).write_bytes(encoded(colour))
    registry = Registry()
    register(registry, tiny_package)
    with serving("models:/cots-index@champion", source=folder) as served:
        paths = originals(served)
        assert served.client.get(paths["red"]).status_code == 200
        registry.withdraw({"red": "its owner asked"})
        assert deploy_without_withdrawn() == 2
        served.until(lambda: served.client.get("/readyz").json()["versions"]["index"]["version"] == "2")
        assert "red" not in originals(served)
        assert served.client.get(paths["red"]).status_code == 404  # of the version before
        assert served.client.get(paths["blue"]).status_code == 200
