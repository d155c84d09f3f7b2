"""MLflow's tracking store and registry: where they are, whether they answer, and the experiment of this project."""

import fcntl
import logging
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cots.errors import BadInput, RunFailed
from cots.project_files import PIPELINE_FILE

if TYPE_CHECKING:
    import mlflow

EXPERIMENT = "cots"
SQLITE = "sqlite:///"
PROBE_SECONDS = 5
# in an address: `user:password@`, `user@` after `//`, a password among the parameters
CREDENTIALS = re.compile(r"[^\s:/@]+:(?!/)\S*@|(?<=//)[^\s/@]+@|(?<=password=)[^&\s]+")
# an @ in the password: drivers would take what follows it for the host, and name it in errors
UNENCODED = re.compile(r"://[^:/@?]*:[^@?]*@[^?]*@")
# They log migrations of a new store, a wait for a model version that does not wait, and files whose lack is an error.
NOISY_LOGGERS = (
    "alembic",
    "mlflow.store.db.utils",
    "mlflow.store.model_registry.abstract_store",
    "mlflow.store.artifact.artifact_repo",
)


def tracking_uri(project: Path = Path()) -> str:
    """URI of the tracking store: `MLFLOW_TRACKING_URI`, by default a SQLite file in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{project / 'mlflow.db'}"


def connect(*, create: bool = True, project: Path = Path()) -> "mlflow.MlflowClient":
    """Connect to tracking store and registry.

    Args:
        create: whether a missing local SQLite file is created.
        project: folder of that file.

    Raises:
        BadInput: there is no such file and `create` is false, or the working folder lies inside a project.
        RunFailed: the server does not answer (detected within seconds), or the store cannot be opened.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # 7 by default: minutes of silence
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for results
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = tracking_uri(project)
    if UNENCODED.search(uri):
        raise RunFailed(
            f"MLflow's address {without_credentials(uri)} has an @ in its password: write %40 for it in "
            "MLFLOW_TRACKING_URI"
        )
    _require_server(uri)
    if path := local_store(project):
        _require_database(path, create=create)
    import mlflow  # takes two seconds, so only after the server has answered

    mlflow.set_tracking_uri(uri)
    try:
        with mlflow_errors(), _lock_database(path):
            if path and not path.stat().st_size:
                _create_database(path)
            client = mlflow.MlflowClient(uri)
            client.search_experiments(max_results=1)
    except (ImportError, ValueError) as error:  # no driver for the database, or a malformed address
        raise RunFailed(_describe_error(error)) from None
    return client


def local_store(project: Path = Path()) -> Path | None:
    """The SQLite file that is the store of a project; None if the store is something else, such as a server."""
    uri = tracking_uri(project)
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def require_project_folder(path: Path) -> None:
    """Check that a file is not missing merely because the working folder lies inside the project.

    Args:
        path: the missing file.

    Raises:
        BadInput: the working folder lies inside a project; the message names the project's folder.
    """
    current = Path.cwd()
    project = next((folder for folder in (current, *current.parents) if (folder / PIPELINE_FILE).is_file()), current)
    if project != current and not path.is_absolute():
        raise BadInput(f"no {path} in {current}: run in the project's folder {project}")


def _require_database(path: Path, *, create: bool) -> None:
    """Check that a SQLite file can be opened, because MLflow would retry for minutes."""
    if not path.exists():
        require_project_folder(path)
        if not create:
            advice = "run `cots index FOLDER`, or `dvc repro` and `cots registry publish`"
            raise BadInput(f"no registry {path.absolute()}: {advice}")
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("pragma schema_version")
    except sqlite3.OperationalError as error:
        hint = "it is a folder, move it away" if path.is_dir() else "give this user the rights"
        raise RunFailed(f"cannot open {path.absolute()} as MLflow's database ({error}): {hint}") from None
    except sqlite3.DatabaseError as error:
        raise RunFailed(f"{path.absolute()} is not MLflow's database ({error}): move it away") from None


def _create_database(path: Path) -> None:
    """Create MLflow's tables under another name: nothing could complete those that a killed process left half made."""
    import mlflow

    # In a new folder each time, because MLflow keeps the database that it has opened at a path until the process ends.
    with TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.", suffix=".partial") as folder:
        partial = Path(folder).absolute() / path.name
        mlflow.MlflowClient(f"{SQLITE}{partial}").search_experiments(max_results=1)
        partial.replace(path)


@contextmanager
def _lock_database(path: Path | None) -> Iterator[None]:
    """Keep other processes from opening the SQLite file: two at once would both create its tables."""
    if path is None or not os.access(path.parent, os.W_OK):  # nobody can create tables there
        yield
        return
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _require_server(uri: str) -> None:
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(without_credentials(uri), timeout=PROBE_SECONDS).close()  # noqa: S310  the scheme is checked above
    except urllib.error.HTTPError:
        return  # the server answers; MLflow reports what it refuses
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a malformed address
        reason = getattr(error, "reason", error)
        raise RunFailed(
            f"no MLflow server at {without_credentials(uri)} ({reason}): start it, "
            "or unset MLFLOW_TRACKING_URI for the local store"
        ) from None


def without_credentials(text: str) -> str:
    """Take user and password out of an address, or of a message that contains one, even if the address is mistyped."""
    return CREDENTIALS.sub("", text)


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turn MLflow's exceptions into a one-line `RunFailed`."""
    try:
        yield
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, MlflowException | SQLAlchemyError):
            raise
        raise RunFailed(_describe_error(error)) from error


def _describe_error(error: Exception) -> str:
    reason = " ".join(str(error).split("\n")[:1]).strip()[:300]
    return without_credentials(f"MLflow at {tracking_uri()}: {reason}")


def get_or_create_experiment(client: "mlflow.MlflowClient") -> str:
    """Id of this project's experiment, created if it does not exist, and restored if it was deleted.

    Raises:
        RunFailed: the project has moved away from where its local store keeps files.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return _create_experiment(client)
    location = urlsplit(experiment.artifact_location)
    project = Path(unquote(location.path)).parent
    if tracking_uri().startswith("sqlite:") and location.scheme == "file" and not project.is_dir():
        raise RunFailed(
            f"{tracking_uri()} keeps its files in {project}, which is gone: if the project has moved, move it back "
            f"or put a link there: ln -s NEW {project}"
        )
    if experiment.lifecycle_stage == "deleted":  # MLflow would refuse every new run
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def _create_experiment(client: "mlflow.MlflowClient") -> str:
    from mlflow.exceptions import MlflowException

    try:
        return client.create_experiment(EXPERIMENT, artifact_location=_artifact_location())
    except MlflowException:
        if created := client.get_experiment_by_name(EXPERIMENT):  # by another process in the meantime
            return created.experiment_id
        raise


def _artifact_location() -> str | None:
    """Artifact folder beside a local database; MLflow's default depends on the working directory."""
    path = local_store()
    return (path.absolute().parent / "mlartifacts").as_uri() if path else None
