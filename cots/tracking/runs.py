"""Tracking: one MLflow run per stage with its parameters, curves, files and lineage."""

import fcntl
import json
import logging
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import islice
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel

from cots.curves import TOTAL_LOSS
from cots.digests import file_digest, text_digest
from cots.errors import BadInput, RunFailed
from cots.files import write_json
from cots.flatten import flatten
from cots.tracking.git import git_state

if TYPE_CHECKING:
    import mlflow
    import pandas as pd

log = logging.getLogger(__name__)

EXPERIMENT = "cots"
SQLITE = "sqlite:///"
UNFINISHED = ".unfinished"  # beside the run's file: the id of a run that has not ended well
PIPELINE = "dvc.yaml"  # in a project's folder
METRICS_PER_CALL = 1000  # MLflow's limit for one batch
PARAMS_PER_CALL = 100  # likewise
PROBE_SECONDS = 5
# of an address: `user:password@`, `user@` after `//`, a password among the parameters
CREDENTIALS = re.compile(r"[^\s:/@]+:(?!/)\S*@|(?<=//)[^\s/@]+@|(?<=password=)[^&\s]+")
# an @ in the password; drivers would take what follows it for the host, and name it in errors
UNENCODED = re.compile(r"://[^:/@?]*:[^@?]*@[^?]*@")
# They log migrations of a new store, a wait for a model version that is immediate, and files whose lack is an error.
NOISY = (
    "alembic",
    "mlflow.store.db.utils",
    "mlflow.store.model_registry.abstract_store",
    "mlflow.store.artifact.artifact_repo",
)


def tracking_uri() -> str:
    """URI of the tracking store: `MLFLOW_TRACKING_URI`, by default a SQLite file in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def connect(*, create: bool = True) -> "mlflow.MlflowClient":
    """Connect to tracking store and registry.

    Args:
        create: whether a missing local SQLite file is created.

    Raises:
        BadInput: there is no such file, and it is not to be created, or the working folder is inside a project.
        RunFailed: the server does not answer (detected within seconds), or the store cannot be opened.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # 7 by default: minutes of silence
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for results
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = tracking_uri()
    if UNENCODED.search(uri):
        raise RunFailed(
            f"MLflow's address {without_credentials(uri)} has an @ in its password: write %40 for it in "
            "MLFLOW_TRACKING_URI"
        )
    _require_server(uri)
    if path := local_store():
        _require_database(path, create=create)
    import mlflow  # takes two seconds, so only after the server has answered

    mlflow.set_tracking_uri(uri)
    try:
        with mlflow_errors(), _one_at_a_time(path):
            if path and not path.stat().st_size:
                _create_database(path)
            client = mlflow.MlflowClient(uri)
            client.search_experiments(max_results=1)
    except (ImportError, ValueError) as error:  # no driver for such a database, or no such address
        raise RunFailed(_failure(error)) from None
    return client


def local_store() -> Path | None:
    """The SQLite file that is the store; None if the store is something else, such as a server."""
    uri = tracking_uri()
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def require_project_folder(path: Path) -> None:
    """Check, where a file of the project is missing, that the working folder is not a folder inside the project.

    Raises:
        BadInput: it is; the message names the project's folder.
    """
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / PIPELINE).is_file()), here)
    if root != here and not path.is_absolute():
        raise BadInput(f"no {path} in {here}: run in the project's folder {root}")


def _require_database(path: Path, *, create: bool) -> None:
    """Open a SQLite file, because MLflow would try for minutes to open one that cannot be."""
    if not path.exists():
        require_project_folder(path)
        if not create:
            first = "run `cots index FOLDER`, or `dvc repro` and `cots registry publish`"
            raise BadInput(f"no registry {path.absolute()}: {first}")
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("pragma schema_version")
    except sqlite3.OperationalError as error:
        hint = "it is a folder, move it away" if path.is_dir() else "give this user the rights"
        raise RunFailed(f"cannot open {path.absolute()} as MLflow's database ({error}): {hint}") from None
    except sqlite3.DatabaseError as error:
        raise RunFailed(f"{path.absolute()} is not MLflow's database ({error}): move it away") from None


def _create_database(path: Path) -> None:
    """Create MLflow's tables under another name, because nothing completes those of a process that was killed."""
    import mlflow

    # A folder of its own, because MLflow keeps what it has opened under a name for the life of the process.
    with TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.", suffix=".partial") as folder:
        partial = Path(folder).absolute() / path.name
        mlflow.MlflowClient(f"{SQLITE}{partial}").search_experiments(max_results=1)
        partial.replace(path)


@contextmanager
def _one_at_a_time(path: Path | None) -> Iterator[None]:
    """Within this context no other process opens the SQLite file: two at once would both create its tables."""
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
    except (OSError, HTTPException, ValueError) as error:  # ValueError: it is no address
        reason = getattr(error, "reason", error)
        raise RunFailed(
            f"no MLflow server at {without_credentials(uri)} ({reason}): start it, "
            "or unset MLFLOW_TRACKING_URI for the local store"
        ) from None


def without_credentials(text: str) -> str:
    """An address, or a message that holds one, without user and password, however the address is mistyped."""
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
        raise RunFailed(_failure(error)) from error


def _failure(error: Exception) -> str:
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
        return client.create_experiment(EXPERIMENT, artifact_location=_artifacts())
    except MlflowException:
        if created := client.get_experiment_by_name(EXPERIMENT):  # by another process in the meantime
            return created.experiment_id
        raise


def _artifacts() -> str | None:
    """Artifact folder beside a local database; MLflow's default depends on the working directory."""
    path = local_store()
    return (path.absolute().parent / "mlartifacts").as_uri() if path else None


@dataclass(frozen=True)
class LoggedRun:
    """An open MLflow run.

    Attributes:
        run_id: MLflow's id of the run.
        logged_steps: steps whose row of the curves MLflow has.
    """

    client: "mlflow.MlflowClient"
    run_id: str
    logged_steps: set[int] = field(default_factory=set)

    def log_curves(self, table: "pd.DataFrame") -> None:
        """Log those rows of a table that have not been logged: a column `step` and one column for each metric."""
        self.log_rows([{str(name): value for name, value in row.items()} for row in table.to_dict("records")])

    def log_rows(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Log rows of curves, metrics by name with their `step`; rows of logged steps are left out."""
        new = [row for row in rows if int(row["step"]) not in self.logged_steps]
        self._log(
            (name, float(value), int(row["step"]))
            for row in new
            for name, value in row.items()
            if name != "step" and not isnan(value)  # what is measured at some steps only
        )
        self.logged_steps.update(int(row["step"]) for row in new)

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Log metrics without steps; MLflow allows letters, digits and `_-./ :` in their names."""
        self._log((name, float(value), 0) for name, value in values.items())

    def _log(self, values: Iterable[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        metrics = (Metric(name, value, now, step) for name, value, step in values)
        while chunk := list(islice(metrics, METRICS_PER_CALL)):
            with mlflow_errors():
                self.client.log_batch(self.run_id, metrics=chunk)

    def log_artifact(self, path: Path) -> None:
        """Log a file, or a folder with its content under its own name."""
        with mlflow_errors():
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), path.name)
            else:
                self.client.log_artifact(self.run_id, str(path))


@contextmanager
def start_run(
    stage: str, sections: Mapping[str, BaseModel] | BaseModel, out: Path, *, manifest: Path
) -> Iterator[LoggedRun]:
    """Open an MLflow run around the work of a stage, nested under the run in `COTS_PARENT_RUN`, if set.

    A run that was killed or failed goes on when the same parameters and data are tried again: one run, one curve.

    Args:
        stage: name of the run: the stage in dvc.yaml, such as `finetune@image-text`.
        sections: parameters that the stage reads, by section.
        out: JSON file written on success: {"run_id", "experiment", "tracking_uri"}.
        manifest: the data manifest; the run is tagged with its digest.

    Raises:
        RunFailed: the tracking server is down or refuses.
    """
    client = connect()
    from mlflow.entities import RunStatus

    params, unfinished = flatten_params(sections), out.with_suffix(UNFINISHED)
    tags = _tags(stage, params, manifest)
    with mlflow_errors():
        logged = _reopen(client, unfinished, tags) or _open(client, stage, params, tags)
    run = logged.run_id
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    unfinished.write_text(run, encoding="utf8")
    try:
        yield logged
    except BaseException:
        try:
            with mlflow_errors():
                client.set_terminated(run, RunStatus.to_string(RunStatus.FAILED))
        except RunFailed as error:  # the stage's own error says more
            log.warning("run %s stays open: %s", run, error)
        raise
    with mlflow_errors():
        client.set_terminated(run)
    out.parent.mkdir(parents=True, exist_ok=True)
    values = {"run_id": run, "experiment": EXPERIMENT, "tracking_uri": without_credentials(tracking_uri())}
    write_json(out, values, durable=True)
    unfinished.unlink(missing_ok=True)


def _open(client: "mlflow.MlflowClient", stage: str, params: Mapping[str, str], tags: Mapping[str, str]) -> LoggedRun:
    from mlflow.entities import Param

    run = client.create_run(get_or_create_experiment(client), run_name=stage, tags=dict(tags)).info.run_id
    for start in range(0, len(params), PARAMS_PER_CALL):
        chunk = list(params.items())[start : start + PARAMS_PER_CALL]
        client.log_batch(run, params=[Param(name, value) for name, value in chunk])
    return LoggedRun(client, run)


def _reopen(client: "mlflow.MlflowClient", unfinished: Path, tags: Mapping[str, str]) -> LoggedRun | None:
    """The run that an earlier attempt with the same parameters and data left unfinished, with its curves so far."""
    from mlflow.entities import RunStatus
    from mlflow.exceptions import MlflowException

    if not unfinished.is_file():
        return None
    run_id = unfinished.read_text(encoding="utf8").strip()
    try:
        run = client.get_run(run_id)
    except MlflowException:  # deleted for good, or of another server
        return None
    same = all(run.data.tags.get(name) == tags[name] for name in ("dvc.stage", "params.digest", "manifest.digest"))
    if not same or run.info.lifecycle_stage == "deleted":
        return None
    client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
    if "mlflow.parentRunId" in tags:
        client.set_tag(run_id, "mlflow.parentRunId", tags["mlflow.parentRunId"])
    return LoggedRun(client, run_id, {metric.step for metric in client.get_metric_history(run_id, TOTAL_LOSS)})


def flatten_params(sections: Mapping[str, BaseModel] | BaseModel) -> dict[str, str]:
    """Parameters by dotted name, as strings: {"pretrain.mask.patch_ratio": "0.4", ...}."""
    by_name = {"": sections} if isinstance(sections, BaseModel) else sections
    plain = {name: section.model_dump(mode="json", by_alias=True) for name, section in by_name.items()}
    flat = flatten(plain.get("", plain))
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in flat.items()}


def _tags(stage: str, values: Mapping[str, str], manifest: Path) -> dict[str, str]:
    parent = os.environ.get("COTS_PARENT_RUN")
    return {
        "dvc.stage": stage,
        "params.digest": text_digest(json.dumps(values, sort_keys=True)),
        "manifest.digest": file_digest(manifest),
        **git_state(),
        **({"mlflow.parentRunId": parent} if parent else {}),
    }
