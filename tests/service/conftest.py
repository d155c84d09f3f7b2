"""Real services on free ports, over tiny packages."""

import base64
import io
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pandas as pd
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from cots.config.params import Params
from cots.registry.client import INDEX
from cots.registry.packaging import InferenceConfig as Packed
from cots.registry.packaging import save_index
from cots.search_engine.engine import SearchEngine
from cots.service.app import ServiceSettings, create_app
from cots.service.middleware import RequestLimits
from cots.service.server import uvicorn_config
from cots.stages.index import stage

ROOT = Path(__file__).parents[2]
PHOTO_IDS = ["red.png", "sub/green.jpg", "../secret.png", "out.png", "in.png", "text.png"]
LIMITS = RequestLimits(body=200_000, pixels=1_000_000, in_flight=64, seconds=5.0)


def encoded(colour: str, form: str = "PNG", size: tuple[int, int] = (40, 32)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, form)
    return file.getvalue()


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Served:
    """A running service and its client."""

    url: str
    client: httpx.Client
    stop: Callable[[], None]

    def search(self, **query: object) -> dict[str, Any]:
        answer = self.client.post("/search", json=query)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def until(self, holds: Callable[[], bool], seconds: float = 30.0, *, every: float = 0.02) -> None:
        """Wait until a condition holds that another thread brings about, looking every so many seconds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(every)


@contextmanager
def running(app: FastAPI) -> Iterator[Served]:
    """An application on a free port, in a thread of this process."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn_config(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()

    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=20) as client:
        try:
            yield Served(url, client, stop)
        finally:
            stop()


Serve = Callable[..., AbstractContextManager[Served]]


@contextmanager
def serving(uri: str | Path, *, ready: bool = True, **changed: Any) -> Iterator[Served]:
    """A service in a thread of this process, ready to answer unless `ready` is False."""
    settings: dict[str, Any] = {
        "poll": 0.1,
        "limits": LIMITS,
        "hosts": frozenset(),
        "token": None,
        "log_queries": None,
    } | changed
    with running(create_app(ServiceSettings(uri=str(uri), **settings))) as served:
        if ready:
            served.until(lambda: served.client.get("/readyz").status_code == 200)
        yield served


@pytest.fixture(scope="session")
def mixed_package(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path) -> Path:
    """A packaged index of 18 images and 9 videos; not to be written to."""
    folder = tmp_path_factory.mktemp("mixed")
    params = Params.load(ROOT / "params.yaml")
    stage(tiny_data / "shards", tiny_data / "manifest.parquet", tiny_model, folder / "index", params=params)
    limits = Packed(batch_size=16, max_pixels=2_000_000, min_side=8)
    save_index(folder / "package", tiny_model, folder / "index", config=limits, cards={})
    return folder / "package"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two images, links that lead in and out, and a text that is called an image."""
    folder = tmp_path_factory.mktemp("photos") / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "red.png").write_bytes(encoded("red", size=(400, 300)))
    turned = Image.new("RGB", (300, 200), "green")
    turned.getexif()[0x0112] = 6
    turned.save(folder / "sub/green.jpg", exif=turned.getexif())
    (folder.parent / "secret.png").write_bytes(encoded("black"))
    (folder / "out.png").symlink_to(folder.parent / "secret.png")
    (folder / "in.png").symlink_to("sub/green.jpg")
    (folder / "text.png").write_text("<script>alert(1)</script>")
    return folder


@pytest.fixture(scope="session")
def package_of_photos(tiny_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose ids are paths."""
    copy = shutil.copytree(tiny_package / "index", tmp_path_factory.mktemp("paths") / "index")
    items = copy / "artifacts" / "index" / "items.parquet"
    pd.read_parquet(items).assign(id=PHOTO_IDS).to_parquet(items)
    return copy


@pytest.fixture(scope="session")
def served(mixed_package: Path) -> Iterator[Served]:
    """A service over `mixed_package` that the tests share."""
    with serving(mixed_package) as served:
        yield served


@pytest.fixture(scope="session")
def search(mixed_package: Path) -> SearchEngine:
    """The search engine of `mixed_package`, as its own code loads it."""
    engine: SearchEngine = mlflow.pyfunc.load_model(str(mixed_package)).unwrap_python_model().search
    return engine


@dataclass(frozen=True)
class Champion:
    """A registry whose champion is changed without a gate."""

    client: mlflow.MlflowClient

    def register(self, package: Path) -> str:
        number = len(self.client.search_model_versions(f"name = '{INDEX}'")) + 1
        tags = {"encoders.version": str(10 * number), "git.commit": f"commit-{number}"}
        return str(self.client.create_model_version(INDEX, (package).as_uri(), tags=tags).version)

    def move(self, version: str) -> None:
        self.client.set_registered_model_alias(INDEX, "champion", version)


@pytest.fixture
def champion(store: str) -> Champion:
    client = mlflow.MlflowClient(store)
    client.create_registered_model(INDEX)
    return Champion(client)
