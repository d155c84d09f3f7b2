"""The bucket: DVC's cache and MLflow's artifacts in it, against a server that speaks S3."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.buckets import Bucket
from tests.infra.test_files import INFRA
from tests.servers import free_port, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def ran(*command: str, cwd: Path, bucket: Bucket) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | bucket.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_bucket_is_made_once_and_holds_what_dvc_pushes(bucket: Bucket, fork_python: str, tmp_path: Path) -> None:
    for _ in range(2):
        ran(sys.executable, str(INFRA / "make_bucket.py"), "cots", cwd=tmp_path, bucket=bucket)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/picture").write_bytes(bytes(range(256)))
    for arguments in (
        ["init", "--no-scm", "-q"],
        ["remote", "add", "-d", "store", "s3://cots/dvc"],
        ["remote", "modify", "store", "endpointurl", bucket.endpoint],
        ["add", "-q", "data"],
        ["push", "-q"],
    ):
        ran(fork_python, "-m", "dvc", *arguments, cwd=tmp_path, bucket=bucket)
    for made in ("data", ".dvc/cache"):
        shutil.rmtree(tmp_path / made)
    ran(fork_python, "-m", "dvc", "pull", "-q", cwd=tmp_path, bucket=bucket)
    assert (tmp_path / "data/picture").read_bytes() == bytes(range(256))


LOG = """
import mlflow, pathlib, sys
mlflow.set_experiment("cots")
with mlflow.start_run() as run:
    mlflow.log_artifact("picture")
back = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="picture", dst_path="back")
assert pathlib.Path(back).read_bytes() == pathlib.Path("picture").read_bytes()
"""


def test_an_artifact_goes_through_the_server_into_the_bucket_without_keys_of_the_client(
    bucket: Bucket, fork_python: str, empty_store: Path, tmp_path: Path
) -> None:
    import boto3

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    ran(sys.executable, str(INFRA / "make_bucket.py"), "artifacts", cwd=tmp_path, bucket=bucket)
    port = free_port()
    options = ["--host=127.0.0.1", f"--port={port}", "--workers=1", "--serve-artifacts"]
    command = [fork_python, "-m", "mlflow", "server", *options, "--artifacts-destination=s3://artifacts/mlflow"]
    mlflow_variables = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    address, environment = f"http://127.0.0.1:{port}", os.environ | bucket.environment | mlflow_variables
    (tmp_path / "picture").write_bytes(bytes(range(256)))
    with serving(command, answers=f"{address}/health", folder=tmp_path, environment=environment):
        client = os.environ | {"MLFLOW_TRACKING_URI": address}
        done = subprocess.run(
            [fork_python, "-c", LOG], cwd=tmp_path, env=client, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    stored = boto3.client("s3", endpoint_url=bucket.endpoint, **keys).list_objects_v2(Bucket="artifacts")["Contents"]
    assert [stored_object["Key"].rsplit("/", 1)[1] for stored_object in stored] == ["picture"]
    assert stored[0]["Key"].startswith("mlflow/")
