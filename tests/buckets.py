"""A stand-in for S3, in this process, on a free port: moto's server, which the real clients talk to."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cots.data.bucket import in_bucket


@dataclass(frozen=True)
class Bucket:
    """A server that speaks S3.

    Attributes:
        endpoint: its address.
        environment: that leads boto3, s3fs and MLflow to it.
    """

    endpoint: str
    environment: dict[str, str]


@contextmanager
def serving_s3() -> Iterator[Bucket]:
    """An empty store; skips where the extra `s3` is not installed."""
    for package in ("boto3", "dvc_s3", "s3fs"):
        pytest.importorskip(package, reason="install the extra s3: uv pip install -e '.[s3]'")
    server = pytest.importorskip("moto.server", reason="install the extra dev")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        yield Bucket(endpoint, keys | {"AWS_ENDPOINT_URL": endpoint, "MLFLOW_S3_ENDPOINT_URL": endpoint})
    finally:
        running.stop()


def upload(folder: Path, to: Path) -> Path:
    """What a bucket holds of a folder: files, and what links in it lead to."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        write_object(to / file.relative_to(folder).as_posix(), file.read_bytes())
    return to


def write_object(path: Path, data: bytes) -> None:
    """Write a file, of a bucket or not."""
    if in_bucket(path):
        path.filesystem.pipe_file(path.key, data)
    else:
        path.write_bytes(data)


def remove_object(path: Path) -> None:
    """Remove a file, of a bucket or not."""
    if in_bucket(path):
        path.filesystem.rm_file(path.key)
    else:
        path.unlink()
