"""The data of a run as MLflow shows them: name, digest and what they hold."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cots.digests import file_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONTEXT = "mlflow.data.context"  # MLflow's tag: what a run used the data for
MAX_DIGEST = 36  # characters that MLflow stores


def log_data_set(client: "MlflowClient", runs: Iterable[str], manifest: Path, *, context: str) -> None:
    """Log the samples of a manifest as an input of some runs.

    Args:
        client: MLflow's; runs: ids of the runs.
        manifest: the data manifest.
        context: `training` or `evaluation`.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data_set = Dataset(
        name=str(manifest),
        digest=file_digest(manifest)[:MAX_DIGEST],
        source_type="local",
        source=json.dumps({"uri": manifest.absolute().as_uri()}),
        profile=json.dumps(describe(pd.read_parquet(manifest, columns=["split", "media", "captions"]))),
    )
    for run in runs:
        client.log_inputs(run, [DatasetInput(data_set, [InputTag(CONTEXT, context)])])


def describe(manifest: pd.DataFrame) -> dict[str, int]:
    """Numbers of samples by split and media, and of captions: {"train image": 4000, ..., "captions": 25000}."""
    parts = Counter(f"{split} {media}" for split, media in zip(manifest["split"], manifest["media"], strict=True))
    return dict(parts) | {"samples": len(manifest), "captions": int(manifest["captions"].map(len).sum())}
