"""A stand-in for the bucket, in this process, on a free port."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Bucket:
    """A server that speaks S3.

    Attributes:
        endpoint: its address.
        environment: that leads boto3 and MLflow to it.
    """

    endpoint: str
    environment: dict[str, str]


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    """An empty store; skips where the extra `s3` is not installed."""
    for package in ("boto3", "dvc_s3"):
        pytest.importorskip(package, reason="install the extra s3: uv pip install -e '.[s3]'")
    server = pytest.importorskip("moto.server", reason="install the extra dev")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        yield Bucket(endpoint, keys | {"AWS_ENDPOINT_URL": endpoint, "MLFLOW_S3_ENDPOINT_URL": endpoint})
    finally:
        running.stop()
