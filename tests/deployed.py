"""A project with a champion and a log of queries."""

import base64
import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from cots.config import Params
from cots.model import RetrievalModel
from cots.serving.publishing import publish
from cots.stages.package import stage

ROOT = Path(__file__).parents[1]
FOREIGN = [f"buy {what} for a low price near the town hall" for what in ("shoes", "boats", "cars", "hats", "cups")]


def deploy(project: Path, *, data: Path, model: Path, made: Path) -> None:
    """Publish a package of `model` as learnt from `data`; limits of drift fit for a handful of samples.

    Args:
        project: a new folder, in which the process must stand; MLflow's store is the environment's.
        data: as stage `prepare` leaves it.
        model: the encoders; made: a project with the index that they made, and reports.
    """
    shutil.copytree(data, project / "data")
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["drift"] |= {"least": 4, "permutations": 199}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    read = Params.load(project / "params.yaml")
    reports, manifest = made / "reports", project / "data/manifest.parquet"
    measured = (reports / "metrics.json", reports / "evaluation", reports / "validation")
    stage(model, made / "index", *measured, manifest, project / "package", params=read)
    publish(read, project)


def write_log(path: Path, model: RetrievalModel, texts: Sequence[str]) -> None:
    """A log of these queries as the service writes it, its last line cut short."""
    start, lines = datetime(2026, 11, 1, tzinfo=UTC), []
    for number, (text, vector) in enumerate(zip(texts, model.encode_texts(texts, batch=8), strict=True)):
        when = (start + timedelta(seconds=number)).isoformat()
        encoded = base64.b64encode(vector.astype("<f2").tobytes()).decode()
        own = {"when": when, "kind": "text", "text": text, "index_version": 1}
        lines.append(json.dumps(own | {"encoders_digest": model.digest, "vector": encoded}))
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([*lines, lines[0][:40]]) + "\n")
