"""One MLflow run per stage, with its parameters, curves, files and lineage."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from math import isnan
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from pydantic import BaseModel

from cots.curves import TOTAL_LOSS
from cots.digests import file_digest, text_digest
from cots.errors import RunFailed
from cots.files import write_json
from cots.flatten import flatten
from cots.tracking.data_set import log_data_set
from cots.tracking.git import git_state
from cots.tracking.pipeline_run import PARENT_TAG, close_pipeline_run, log_params, open_pipeline_run
from cots.tracking.store import (
    EXPERIMENT,
    connect,
    get_or_create_experiment,
    mlflow_errors,
    tracking_uri,
    without_credentials,
)
from cots.tracking.system_metrics import log_system_metrics

if TYPE_CHECKING:
    import mlflow
    import pandas as pd

log = logging.getLogger(__name__)

UNFINISHED = (
    ".unfinished"  # suffix of the file, beside the run's own, that holds the id of a run that has not succeeded
)
METRICS_PER_CALL = 1000  # MLflow's limit for one batch


@dataclass(frozen=True)
class LoggedRun:
    """An open MLflow run.

    Attributes:
        client: of the tracking store.
        run_id: MLflow's id of the run.
        parent_id: that of the run of the whole pipeline, or None.
        logged_steps: steps whose metrics MLflow has.
    """

    client: "mlflow.MlflowClient"
    run_id: str
    parent_id: str | None = None
    logged_steps: set[int] = field(default_factory=set)

    def log_curves(self, table: "pd.DataFrame") -> None:
        """Log the rows of a table that are not in MLflow yet: a column `step`, and a column for each metric."""
        self.log_rows([{str(name): value for name, value in row.items()} for row in table.to_dict("records")])

    def log_rows(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Log rows of curves, each a `step` and metrics by name; steps that MLflow has already are left out."""
        new = [row for row in rows if int(row["step"]) not in self.logged_steps]
        self._log(
            (name, float(value), int(row["step"]))
            for row in new
            for name, value in row.items()
            if name != "step" and not isnan(value)  # NaN: not measured at this step
        )
        self.logged_steps.update(int(row["step"]) for row in new)

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Log metrics without steps; MLflow allows letters, digits and `_-./ :` in their names."""
        self._log((name, float(value), 0) for name, value in values.items())

    def log_headline(self, values: Mapping[str, float]) -> None:
        """Log to the run of the whole pipeline, if there is one, what pipelines are compared by."""
        if self.parent_id:
            self._log(((name, float(value), 0) for name, value in values.items()), run_id=self.parent_id)

    def _log(self, values: Iterable[tuple[str, float, int]], run_id: str | None = None) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        metrics = (Metric(name, value, now, step) for name, value, step in values)
        while chunk := list(islice(metrics, METRICS_PER_CALL)):
            with mlflow_errors():
                self.client.log_batch(run_id or self.run_id, metrics=chunk)

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
    """Open an MLflow run around the work of a stage, nested under that of the pipeline.

    If the stage was killed or failed, the next attempt with the same parameters and data continues the same run.

    Args:
        stage: name of the run: the stage in dvc.yaml, such as `finetune@image-text`.
        sections: parameters that the stage reads, by section.
        out: JSON file written on success: {"run_id", "experiment", "tracking_uri"}.
        manifest: the data manifest, logged as the data set of the run; the run is tagged with its digest.

    Raises:
        RunFailed: the tracking server is down or refuses.
    """
    client = connect()
    from mlflow.entities import RunStatus

    params, unfinished = flatten_params(sections), out.with_suffix(UNFINISHED)
    with mlflow_errors():
        parent_id = open_pipeline_run(client, get_or_create_experiment(client), manifest)
        tags = _tags(stage, params, manifest, parent_id)
        run = _reopen_run(client, unfinished, tags) or _create_run(client, stage, params, tags)
        runs = filter(None, (run.run_id, parent_id))
        log_data_set(client, runs, manifest, context="evaluation" if stage == "evaluate" else "training")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    unfinished.write_text(run.run_id, encoding="utf8")
    try:
        with log_system_metrics(run.run_id):
            yield run
    except BaseException:
        try:
            with mlflow_errors():
                client.set_terminated(run.run_id, RunStatus.to_string(RunStatus.FAILED))
                close_pipeline_run(client, parent_id, failed=True)
        except RunFailed as error:  # the stage's own error says more
            log.warning("run %s stays open: %s", run.run_id, error)
        raise
    with mlflow_errors():
        client.set_terminated(run.run_id)
        close_pipeline_run(client, parent_id, failed=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    values = {"run_id": run.run_id, "experiment": EXPERIMENT, "tracking_uri": without_credentials(tracking_uri())}
    write_json(out, values, durable=True)
    unfinished.unlink(missing_ok=True)


def _create_run(
    client: "mlflow.MlflowClient", stage: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> LoggedRun:
    run_id = client.create_run(get_or_create_experiment(client), run_name=stage, tags=dict(tags)).info.run_id
    log_params(client, run_id, params)
    return LoggedRun(client, run_id, tags.get(PARENT_TAG))


def _reopen_run(client: "mlflow.MlflowClient", unfinished: Path, tags: Mapping[str, str]) -> LoggedRun | None:
    """Reopen the run that an earlier attempt with the same parameters and data left unfinished, if there is one."""
    from mlflow.entities import RunStatus
    from mlflow.exceptions import MlflowException

    if not unfinished.is_file():
        return None
    run_id = unfinished.read_text(encoding="utf8").strip()
    try:
        run = client.get_run(run_id)
    except MlflowException:  # deleted for good, or of another server
        return None
    same_inputs = all(
        run.data.tags.get(name) == tags[name] for name in ("dvc.stage", "params.digest", "manifest.digest")
    )
    if not same_inputs or run.info.lifecycle_stage == "deleted":
        return None
    client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
    if PARENT_TAG in tags:
        client.set_tag(run_id, PARENT_TAG, tags[PARENT_TAG])
    logged_steps = {metric.step for metric in client.get_metric_history(run_id, TOTAL_LOSS)}
    return LoggedRun(client, run_id, tags.get(PARENT_TAG), logged_steps)


def flatten_params(sections: Mapping[str, BaseModel] | BaseModel) -> dict[str, str]:
    """Parameters by dotted name, as strings: {"pretrain.mask.patch_ratio": "0.4", ...}."""
    by_name = {"": sections} if isinstance(sections, BaseModel) else sections
    plain = {name: section.model_dump(mode="json", by_alias=True) for name, section in by_name.items()}
    flat = flatten(plain.get("", plain))
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in flat.items()}


def _tags(stage: str, params: Mapping[str, str], manifest: Path, parent_id: str | None) -> dict[str, str]:
    return {
        "dvc.stage": stage,
        "params.digest": text_digest(json.dumps(params, sort_keys=True)),
        "manifest.digest": file_digest(manifest),
        **git_state(),
        **({PARENT_TAG: parent_id} if parent_id else {}),
    }
