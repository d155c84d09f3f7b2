"""The data of a run as MLflow shows them: name, digest and what they hold."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from cots.data.manifest import read_pieces
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
        profile=json.dumps(describe(read_pieces(manifest, ["split", "media", "captions"]))),
    )
    for run in runs:
        client.log_inputs(run, [DatasetInput(data_set, [InputTag(CONTEXT, context)])])


def describe(manifest: Iterable[pa.RecordBatch]) -> dict[str, int]:
    """Numbers of samples by split and media, and of captions: {"train image": 4000, ..., "captions": 25000}.

    Args:
        manifest: its columns `split`, `media` and `captions`, in pieces.
    """
    parts, captions = Counter[str](), 0
    for piece in manifest:
        parts.update(map(" ".join, zip(piece["split"].to_pylist(), piece["media"].to_pylist(), strict=True)))
        captions += len(piece["captions"].flatten())
    return dict(parts) | {"samples": parts.total(), "captions": captions}
