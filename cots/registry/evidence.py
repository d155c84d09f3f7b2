"""What a registered version keeps beside the model: what it was asked, what it learnt from, with which parameters."""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cots.config.stages.package import PackageParams
from cots.data.manifest import write_table
from cots.errors import BadInput
from cots.file_names import LINEAGE
from cots.files import write_json
from cots.index.index_folder import ITEMS

EVIDENCE = "evidence"
QUERIES, LEARNT, PARAMS = "queries.parquet", "learnt.parquet", "params.json"
LEARNT_SCHEMA = pa.schema([("id", pa.string()), ("media", pa.string())])


def save_evidence(folder: Path, queries: Path, manifest: pd.DataFrame, params: Mapping[str, Any]) -> None:
    """Write the evidence of freshly trained encoders.

    Args:
        folder: created.
        queries: the table of the deployed model's test queries.
        manifest: of the data that trained it.
        params: the whole parameter file as plain values.

    Raises:
        BadInput: there is no such table of queries.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(queries, folder / QUERIES)
    except OSError as error:
        raise BadInput(f"no table of queries {queries} ({error.strerror}): run `dvc repro evaluate`") from None
    rows = manifest.loc[manifest["split"] == "train", LEARNT_SCHEMA.names]
    write_table(folder / LEARNT, rows.sort_values("id").to_dict("records"), LEARNT_SCHEMA)
    write_json(folder / PARAMS, params)


class VersionArtifacts:
    """The files of a registered version of `cots-index`, fetched when they are asked for.

    Args:
        client: of the registry.
        version: whose files.
    """

    def __init__(self, client: MlflowClient, version: ModelVersion) -> None:
        self._client, self._version = client, version

    def queries(self) -> pd.DataFrame:
        """Its test queries, with the rank that each found."""
        return self._table(f"{EVIDENCE}/{QUERIES}")

    def learnt(self) -> set[str]:
        """Ids of the samples that its encoders were trained on."""
        return set(self._table(f"{EVIDENCE}/{LEARNT}")["id"])

    def items(self) -> set[str]:
        """Ids of the samples that its index holds."""
        return set(self._table(f"{self._version.name}/artifacts/index/{ITEMS}")["id"])

    def params(self) -> dict[str, Any]:
        """The parameter file behind it, as plain values: under the present names, with the defaults of later keys."""
        return PackageParams.model_validate(self._json(f"{EVIDENCE}/{PARAMS}")).recipe()

    def lineage(self) -> dict[str, Any]:
        """What stage `package` wrote down of it."""
        return self._json(LINEAGE)

    def folder(self, out: Path) -> Path:
        """All of the evidence, copied below a folder."""
        out.mkdir(parents=True, exist_ok=True)
        return Path(self._client.download_artifacts(str(self._version.run_id), EVIDENCE, str(out)))

    def _table(self, path: str) -> pd.DataFrame:
        return pd.read_parquet(io.BytesIO(self._bytes(path)))

    def _json(self, path: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self._bytes(path))
        return values

    def _bytes(self, path: str) -> bytes:
        with TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(str(self._version.run_id), path, folder)).read_bytes()
