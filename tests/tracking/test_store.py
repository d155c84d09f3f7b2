"""The tracking store: created whole, reached within seconds, or one line that says why not."""

import shutil
import subprocess
from pathlib import Path
from unittest.mock import Mock

import mlflow
import pytest

from cots.errors import BadInput, RunFailed
from cots.registry.catalog import list_promotions, list_versions
from cots.tracking.loading import load_start
from cots.tracking.store import connect, get_or_create_experiment, without_credentials
from tests.conftest import tracked_in


def test_a_project_that_has_moved_is_told_where_its_files_are_expected(tmp_path: Path, empty_store: Path) -> None:
    (tmp_path / "before").mkdir()
    with tracked_in(Path(shutil.copy(empty_store, tmp_path / "before"))):
        get_or_create_experiment(connect())
    (tmp_path / "before").rename(tmp_path / "after")
    with tracked_in(tmp_path / "after/mlflow.db"):
        with pytest.raises(RunFailed, match=f"put a link there: ln -s NEW {tmp_path}/before"):
            get_or_create_experiment(connect())
        (tmp_path / "before").symlink_to(tmp_path / "after")
        assert get_or_create_experiment(connect())


@pytest.mark.parametrize(
    "address",
    [
        "postgress://cots:S3CRET@db.internal/mlflow",
        "postgresql:/cots:S3CRET@db.internal/mlflow",
        "cots:S3CRET@db.internal/mlflow",
        "postgresql://cots:S3CRET@db.internal:54x/mlflow",
        "mysql+nothing://cots:S3CRET@db.internal/mlflow",
        "http//cots:S3CRET@127.0.0.1:9",
        "htps://cots:S3CRET@127.0.0.1:9",
        "http://cots:S3/CRET@127.0.0.1:9",
        "http://cots:S3@CRET@127.0.0.1:9",
        "postgresql://cots:S3@CRET@db.internal/mlflow",
        "postgresql+psycopg2://cots:S3/@CR:ET@db.internal:5432/mlflow?sslmode=require",
        "http://cots:S3CRET@[127.0.0.1:9",
        "http://S3CRET@127.0.0.1:9",
    ],
)
def test_a_mistyped_address_is_reported_in_one_line_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(RunFailed, match="MLflow") as failed:
        connect()
    mlflow.set_tracking_uri("")
    message = str(failed.value)
    assert "\n" not in message
    assert not any(part in message for part in ("S3", "CRET", "cots:"))


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (
            "postgresql://db/mlflow?user=cots&password=S3CRET&sslmode=require",
            "postgresql://db/mlflow?user=cots&password=&sslmode=require",
        ),
        (
            "no model models:/cots-index@champion in sqlite:////home/a@b/mlflow.db",
            "no model models:/cots-index@champion in sqlite:////home/a@b/mlflow.db",
        ),
        ("'https://cots:S3CRET@host:5000/' and https://host", "'https://host:5000/' and https://host"),
    ],
)
def test_credentials_alone_are_taken_out_of_a_message(text: str, cleaned: str) -> None:
    assert without_credentials(text) == cleaned


def test_a_store_that_cannot_be_opened_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(RunFailed, match="mlflow.db as MLflow's database .* it is a folder, move it away"):
        connect()
    (tmp_path / "mlflow.db").rmdir()
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(RunFailed, match="is not MLflow's database .* move it away"):
        connect()


def test_a_folder_inside_a_project_gets_no_store_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    for read in (connect, list_versions):
        with pytest.raises(BadInput, match=f"no mlflow.db in {tmp_path}/docs: run in the project's folder {tmp_path}"):
            read()
    assert not list((tmp_path / "docs").iterdir())


def test_who_only_reads_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert list_versions() == []
    assert list_promotions() == []
    for uri in ("models:/cots-index@champion", "models:/cots-encoders/1"):
        with pytest.raises(BadInput, match="run `cots index FOLDER`, or `dvc repro` and `cots registry publish`"):
            load_start(uri)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_processes_that_open_a_new_store_at_once_all_find_the_same_experiment(
    tmp_path: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = "from cots.tracking.store import *; print(get_or_create_experiment(connect()))"
    command = [fork_python, "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=tmp_path, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    ended = [(*process.communicate(), process.returncode) for process in processes]
    assert ended == [("1\n", "", 0)] * 4


@pytest.mark.slow
def test_a_store_that_a_killed_process_was_making_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow cannot go on where tables were created and their version was not written."""
    path = tmp_path / "mlflow.db"
    with tracked_in(path):
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(mlflow.MlflowClient, "search_experiments", Mock(side_effect=KeyboardInterrupt))
            connect()
        assert not path.stat().st_size
        assert connect().search_experiments()
    assert {file.name for file in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}
