"""Common fixtures: MLflow stores, tiny encoders, an index, packages and data."""

import fcntl
import gc
import hashlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cots.data.bucket import BucketPath, parse_location
from tests.browser import CHROMIUM
from tests.buckets import Bucket, serving_s3
from tests.fork_server import start
from tests.forked import use_real_interpreter

if TYPE_CHECKING:  # functions import what they need: the process that only hands out tests starts 5 s sooner
    import pandas as pd
    from playwright.sync_api import Browser

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Fork the workers from a process in which everything is imported, which takes each 20 s of a core."""
    session_folder: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    for spec in specs:
        spec.python = start(session_folder / "fork-server", os.getpid())


def pytest_configure(config: pytest.Config) -> None:
    """Ignore warnings at import (Great Expectations' of `sre_constants`, MLflow's of type hints); take Ctrl+C.

    A shell's background jobs ignore SIGINT, and so would all processes that tests start and interrupt.
    """
    use_real_interpreter()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("filterwarnings", "ignore:module 'sre_.*' is deprecated:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:.*Any type hint is inferred as AnyType:UserWarning")


LONGEST = [
    "test_platform.py",
    "test_ray_gang.py",
    "test_launch.py",
    "test_page.py",
    "test_retrain.py",
    "test_processes.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, then those that start servers or train: all workers end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    first = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (first.get(item.path.name, len(first)), item.path not in slow))


def pytest_collection_finish() -> None:
    """Spare the garbage collector the millions of objects of imports and collection: they live to the end."""
    gc.freeze()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def import_path() -> list[str]:
    return list(sys.path)


@pytest.fixture(autouse=True)
def _import_this_tree(import_path: list[str]) -> None:
    """Drop what MLflow put before the tree: the code of a loaded package, which a spawned process would import."""
    sys.path[:] = import_path


Encoded = Callable[..., bytes]
Cots = Callable[..., tuple[int, str, str]]
COLOURS = ["red", "green", "blue", "yellow", "white", "black"]


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """The path, which the first worker to need it has made; not to be written to."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(partial := path.with_name(f"partial-{path.name}"))
            partial.rename(path)
    return path


@pytest.fixture(scope="session")
def empty_store(session_folder: Path) -> Path:
    """A migrated database; created once, because that takes seconds."""

    from cots.tracking.store import connect

    def migrate(path: Path) -> None:
        with tracked_in(path):
            connect()

    return made_once(session_folder / "mlflow.db", migrate)


@contextmanager
def tracked_in(path: Path) -> Iterator[str]:
    """Use a SQLite file as the MLflow store inside the block; yield its URI, as in `MLFLOW_TRACKING_URI`."""
    import mlflow

    uri = f"sqlite:///{path}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        yield uri
    mlflow.set_tracking_uri("")


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    with serving_s3() as running:
        yield running


@pytest.fixture
def bucket_folder(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in a new bucket, which this process and those that it starts reach; what is fetched is in `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    name = f"cots-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]}"
    BucketPath(f"/{name}").filesystem.mkdir(name)
    return parse_location(f"s3://{name}/folder")


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[str]:
    """The URI of an empty MLflow store for one test, as in `MLFLOW_TRACKING_URI`."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    with tracked_in(tmp_path / "mlflow.db") as uri:
        yield uri


@pytest.fixture(scope="session")
def store_of_one_version(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, tiny_package: Path) -> Path:
    """A store in which `tiny_package` is registered; copies of it share its artifact files and add their own."""
    from tests.deployed import registered_in

    return registered_in(shutil.copy(empty_store, tmp_path_factory.mktemp("store")), tiny_package)


@pytest.fixture(scope="session")
def store_of_two_versions(
    tmp_path_factory: pytest.TempPathFactory, store_of_one_version: Path, other_package: Path
) -> Path:
    """A store in which `other_package` has replaced `tiny_package` as the champion."""
    from tests.deployed import registered_in

    return registered_in(shutil.copy(store_of_one_version, tmp_path_factory.mktemp("store")), other_package)


@pytest.fixture
def cots(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cots:
    """Run the command line in this process: (exit code, standard output, standard error)."""

    from cots.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cots", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def save_tiny_model(folder: Path, seed: int) -> None:
    """Write a model folder with random encoders of one small block."""
    import torch

    from cots.data.wordpiece import train_tokenizer
    from cots.models.dual_encoder import DualEncoder

    torch.manual_seed(seed)
    settings = {
        "dim": 16,
        "image": {
            "name": "vit_tiny_patch16_224",
            "pretrained": False,
            "size": 32,
            "patch": 8,
            "stem": "linear",
            "pool": "class",
            "options": {"embed_dim": 32, "depth": 1, "num_heads": 2},
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
        "text": {
            "name": "bert",
            "pretrained": False,
            "max_tokens": 16,
            "pool": "class",
            "vocab_size": 100,
            "options": {
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
            },
        },
    }
    tokenizer = train_tokenizer([f"a {colour} square" for colour in COLOURS], vocab_size=100)
    DualEncoder.build(settings, tokenizer).save(folder)


def save_index(folder: Path, encoders: Path) -> None:
    """Write an index of one plain square per colour, in the format of stage `index`."""
    import numpy as np
    import pandas as pd
    import webdataset as wds
    from PIL import Image

    from cots.index.embedding_index import EmbeddingIndex
    from cots.index.frame_embeddings import FrameEmbeddings
    from cots.index.thumbnails import thumbnail_members
    from cots.models.dual_encoder import DualEncoder

    model = DualEncoder.load(encoders)
    images = [Image.new("RGB", (40, 32), colour) for colour in COLOURS]
    embeddings = model.encode_images(images, batch_size=4)
    EmbeddingIndex.build(np.asarray(embeddings), "Flat").save(folder / "index.faiss")
    FrameEmbeddings.of(embeddings[:0], [0] * len(COLOURS)).save(folder / "frames.safetensors")
    with wds.TarWriter(str(folder / "previews.tar"), mtime=0, encoder=False) as previews:
        for row, image in enumerate(images):
            previews.write(thumbnail_members(row, [image], side=24))
    items = pd.DataFrame(
        {
            "id": COLOURS,
            "media": "image",
            "split": "test",
            "captions": [[f"a {colour} square", "a square"] for colour in COLOURS],
            "origin": "drawn",
        }
    )
    items.to_parquet(folder / "items.parquet")
    captions = [*(f"a {colour} square" for colour in COLOURS), "a square"]
    EmbeddingIndex.build(model.encode_texts(captions, batch_size=4), "Flat").save(folder / "captions.faiss")
    described = [*([row] for row in range(len(COLOURS))), list(range(len(COLOURS)))]
    pd.DataFrame({"caption": captions, "items": described}).to_parquet(folder / "captions.parquet")
    about: dict[str, object] = {"kind": "Flat", "dim": model.dim, "size": len(items), "encoder": model.digest}
    about |= {"recall": 1.0, "ms_per_query": 0.1}
    (folder / "index.json").write_text(json.dumps(about))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; not to be written to."""
    folder = tmp_path_factory.mktemp("models") / "image-text"
    save_tiny_model(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def tiny_index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """An index folder built by `tiny_model`; not to be written to."""
    folder = tmp_path_factory.mktemp("index")
    save_index(folder, tiny_model)
    return folder


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with other weights than `tiny_model`."""
    folder = tmp_path_factory.mktemp("models") / "image-text"
    save_tiny_model(folder, seed=1)
    return folder


def reported(recall: float) -> dict[str, object]:
    """The section of metrics.json for images, with the same value for every recall, in per cent."""
    direction = {"R@1": recall, "R@5": recall, "R@10": recall, "mAP@R": recall, "MdR": 7.0, "mean_rank": 9.0}
    chance = {"R@1": 0.2, "R@5": 1.0, "R@10": 2.0, "mAP@R": 0.2, "MdR": 250.0, "mean_rank": 250.5}
    interval = {name: {"low": value - 1, "high": value + 1} for name, value in direction.items()}
    return {
        "i2t": direction,
        "t2i": direction,
        "rsum": 6 * recall,
        "chance": {"i2t": chance, "t2i": chance, "rsum": 6.4},
        "interval": {"i2t": interval, "t2i": interval},
        "queries": {"items": 500, "texts": 2500},
    }


def ranked(recall: float) -> "pd.DataFrame":
    """Ranks for 100 images with two captions each: `recall` per cent of the queries rank their partner first."""
    import pandas as pd

    directions: list[tuple[str, list[int | None], int, int]] = [("i2t", [None], 2, 200), ("t2i", [0, 1], 1, 100)]
    rows = [
        {
            "direction": direction,
            "query": f"{item}#{caption}",
            "item": str(item),
            "caption": caption,
            "rank": 1 if item < recall else 60,
            "relevant": relevant,
            "candidates": candidates,
            "average_precision": float(item < recall),
        }
        for direction, captions, relevant, candidates in directions
        for item in range(100)
        for caption in captions
    ]
    return pd.DataFrame(rows)


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store of objects that does not exist yet: a folder or a bucket."""
    if request.param == "folder":
        return tmp_path / "objects"
    path: Path = request.getfixturevalue("bucket_folder")
    return path


def save_package(project: Path, encoders: Path, *, recall: float, objects: Path | None = None) -> Path:
    """Run stage `package` on the encoders and their index; the files that it reads are written into `project`.

    The index is kept in the store `objects`, if one is given.
    """
    from cots.config.params import Params
    from cots.data.manifest import SCHEMA, write_table
    from cots.data.store import keep_folder
    from cots.stages.package import stage

    index, metrics, validation = project / "index", project / "reports" / "metrics.json", project / "reports/validation"
    validation.mkdir(parents=True)
    index.mkdir()
    (project / "data").mkdir()
    save_index(index, encoders)
    keep_folder(index, objects, stage="index")
    metrics.write_text(json.dumps({"image-text": reported(recall)}))
    evaluation = project / "reports" / "evaluation"
    evaluation.mkdir()
    ranked(recall).to_parquet(evaluation / "image-text.parquet")
    check = {"expectation": "ids are unique", "limit": "all", "observed": "0 of 3 fail", "success": True}
    overview = {"captions": 4, "rejected": {"damaged": 2, "too small": 1}, "samples": {"train image": 2}}
    summary = {"success": True, "overview": overview, "checks": [check]}
    (validation / "summary.json").write_text(json.dumps(summary))
    manifest = project / "data" / "manifest.parquet"
    rows: list[dict[str, object]] = [
        {"id": str(n), "split": "train" if n else "test", "media": "image", "captions": ["a"] * n} for n in range(3)
    ]
    write_table(manifest, rows, SCHEMA)
    params = Params.load(Path(__file__).parents[1] / "params.yaml")
    stage(encoders, index, metrics, evaluation, validation, manifest, project / "package", params=params)
    return project / "package"


@pytest.fixture(scope="session")
def tiny_package(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Output of stage `package` for `tiny_model`, inside its project; not to be written to."""
    return save_package(tmp_path_factory.mktemp("project"), tiny_model, recall=40.0)


@pytest.fixture(scope="session")
def other_package(tmp_path_factory: pytest.TempPathFactory, other_model: Path) -> Path:
    """Output of stage `package` for `other_model`, whose metrics are better."""
    return save_package(tmp_path_factory.mktemp("project"), other_model, recall=50.0)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of stage `prepare`: `shards`, `manifest.parquet`, `rejected.parquet`; not to be written to.

    Every split has a plain image per colour and a video of three frames for every second colour, each with two
    captions; in train, the second caption of the red samples is flagged as wrong.
    """
    from cots.data.manifest import REJECTED_SCHEMA, SCHEMA, write_table

    folder = tmp_path_factory.mktemp("data")
    series = [(split, media) for split in ("train", "val", "test") for media in ("image", "video")]
    rows = [row for number, kind in enumerate(series) for row in _stored_colours(folder / "shards", number, *kind)]
    write_table(folder / "manifest.parquet", rows, SCHEMA)
    reject: dict[str, object] = {
        "id": "x",
        "split": "train",
        "origin": "x.jpg",
        "reason": "cut short",
        "detail": "12 of 90 bytes <&>",
    }
    write_table(folder / "rejected.parquet", [reject], REJECTED_SCHEMA)
    return folder


def _stored_colours(shards: Path, number: int, split: str, media: str) -> list[dict[str, object]]:
    from PIL import Image

    from cots.data.image_hashes import image_hashes
    from cots.data.images import encode_jpeg
    from cots.data.samples import StoredSample
    from cots.data.shards import shard_name, write_shard

    rows: list[dict[str, object]] = []
    stored = []
    for number_in_shard, colour in enumerate(COLOURS[:: 2 if media == "video" else 1]):
        frames = [Image.new("RGB", (40 + 2 * frame, 32), colour) for frame in range(3 if media == "video" else 1)]
        captions = (f"a {colour} square in {split}", f"one {colour} & <plain> {media}")
        sample = StoredSample(
            key=f"{number}{number_in_shard:08d}",
            id=f"{split}-{media}-{colour}",
            captions=captions,
            frames=tuple(encode_jpeg(frame) for frame in frames),
        )
        stored.append(sample)
        pixel_hash, dhash = image_hashes(frames[0])
        rows.append(
            {
                "key": sample.key,
                "id": sample.id,
                "split": split,
                "media": media,
                "shard": shard_name(split, media, 0),
                "captions": captions,
                "wrong": (False, split == "train" and colour == "red"),
                "frames": len(frames),
                "width": 40,
                "height": 32,
                "bytes": sum(map(len, sample.frames)),
                "pixel_hash": pixel_hash,
                "dhash": dhash,
                "origin": "drawn",
            }
        )
    write_shard(shards / shard_name(split, media, 0), stored)
    return rows


@pytest.fixture(scope="session")
def make_image() -> Encoded:
    """Makes an encoded image: noise, the same for the same seed."""
    import numpy as np
    from PIL import Image

    def encoded(width: int = 40, height: int = 32, *, seed: int = 0, kind: str = "JPEG", **options: object) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        return file.getvalue()

    return encoded


@pytest.fixture(scope="session")
def make_video(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    """Makes an H.264 video whose frame n has the grey level 10 * n modulo 250; its index comes first, as on the web."""
    import av
    import numpy as np

    file = tmp_path_factory.mktemp("videos") / "video.mp4"

    def encoded(frames: int = 12, *, width: int = 64, height: int = 48) -> bytes:
        with av.open(file, "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=5)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(frames):
                pixels = np.full((height, width, 3), 10 * number % 250, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        return file.read_bytes()

    return encoded


@pytest.fixture(scope="session")
def data_packs() -> Path:
    """The packs of real images, at `COTS_DATA` or beside the project."""
    default = Path(__file__).parents[2] / "shared" / "data"
    packs = Path(os.environ.get("COTS_DATA", default))
    if not packs.is_dir():
        pytest.skip(f"no packs of real images at {packs}: set COTS_DATA")
    return packs


@pytest.fixture
def squares_champion(
    tmp_path: Path, store: str, tiny_package: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A DVC project of plain squares as the working folder, with a champion that was trained on other images."""
    from cots.config.params import Params
    from cots.registry.publishing import publish
    from tests.deployed import squares_project

    folder = squares_project(tmp_path / "project", tiny_package, fork_python)
    monkeypatch.chdir(folder)
    publish(Params.load())
    return folder


@pytest.fixture(scope="session")
def fork_python(session_folder: Path) -> str:
    """The path of a stand-in for `python` that starts at once; `tests.fork_server` documents its limits."""
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    return start(session_folder / "fork-server", owner)
