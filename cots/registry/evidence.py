"""Evidence stored with a registered version: its test queries, the ids of its training samples, its parameters."""

import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
from mlflow import MlflowClient
from mlflow.artifacts import list_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cots.config.stages.package import PackageParams
from cots.data.manifest import write_table
from cots.data.object_cache import local_part
from cots.data.store import LIST, ObjectList, has_object, object_path, parse_list
from cots.errors import BadInput, UnreadableFiles
from cots.file_names import LINEAGE
from cots.files import write_json
from cots.index.index_folder import ITEMS
from cots.tracking.store import mlflow_errors

EVIDENCE = "evidence"
QUERIES, LEARNT, PARAMS = "queries.parquet", "learnt.parquet", "params.json"
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # MLflow's codes for a lost run or file
LEARNT_SCHEMA = pa.schema([("id", pa.string()), ("media", pa.string())])


def save_evidence(folder: Path, queries: Path, manifest: pd.DataFrame, params: Mapping[str, Any]) -> None:
    """Write the evidence of freshly trained encoders.

    Args:
        folder: created if it does not exist.
        queries: file with the deployed model's test queries and their ranks.
        manifest: of the training data.
        params: the whole parameter file as plain values.

    Raises:
        BadInput: the file `queries` does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(queries, folder / QUERIES)
    except OSError as error:
        raise BadInput(f"cannot read test queries {queries} ({error.strerror}): run `dvc repro evaluate`") from None
    rows = manifest.loc[manifest["split"] == "train", LEARNT_SCHEMA.names]
    write_table(folder / LEARNT, rows.sort_values("id").to_dict("records"), LEARNT_SCHEMA)
    write_json(folder / PARAMS, params)


class VersionArtifacts:
    """Files of a registered version of `cots-index`, downloaded on access.

    Args:
        client: of the registry.
        version: of `cots-index`; of `cots-encoders` for its lists alone.

    Raises:
        UnreadableFiles: by every method, if the file is missing or damaged.
        RunFailed: by every method, if MLflow is down or refuses.
    """

    def __init__(self, client: MlflowClient, version: ModelVersion) -> None:
        self._client, self._version = client, version

    def load_queries(self) -> pd.DataFrame:
        """The test queries with the rank of each."""
        return self._table(f"{EVIDENCE}/{QUERIES}")

    def load_training_ids(self) -> set[str]:
        """Ids of the samples that the encoders were trained on."""
        return set(self._table(f"{EVIDENCE}/{LEARNT}")["id"])

    def load_item_ids(self) -> set[str]:
        """Ids of the samples in the index."""
        folder = f"{self._version.name}/artifacts/index"
        with self._reading(f"{folder}/{ITEMS}"), TemporaryDirectory() as scratch:
            name = LIST if LIST in self._names(folder) else ITEMS
            items = local_part(self._download(f"{folder}/{name}", scratch).with_name(ITEMS))
            return set(pd.read_parquet(items, columns=["id"])["id"])

    def load_lists(self) -> list[ObjectList]:
        """The lists of those of its folders whose files are kept in a store."""
        root = f"{self._version.name}/artifacts"
        with self._reading(root), TemporaryDirectory() as scratch:
            if not (folders := self._names(root)):
                raise FileNotFoundError("there is nothing")
            paths = [f"{root}/{folder}/{LIST}" for folder in folders if LIST in self._names(f"{root}/{folder}")]
            return [parse_list(self._download(path, scratch)) for path in paths]

    def load_params(self) -> dict[str, Any]:
        """The parameter file as plain values: under today's names, with defaults for keys added since."""
        return PackageParams.model_validate(self._json(f"{EVIDENCE}/{PARAMS}")).dump_packaged()

    def require_files(self) -> None:
        """Check that the version has files and the objects that its lists name, without reading any of these."""
        with self._reading("its folder"):
            if not list_artifacts(artifact_uri=str(self._version.source)):
                raise FileNotFoundError("there is nothing")
        for listed in self.load_lists():
            for part, stored in listed.parts.items():
                if not has_object(file := object_path(listed.store, stored.sha256), stored):
                    version = f"{self._version.name} version {self._version.version}"
                    raise UnreadableFiles(
                        f"{version}: {file}, which holds {part}, is missing: restore it, or delete the version "
                        "in MLflow"
                    )

    def is_readable(self) -> bool:
        """Whether the version still has its files; looks for one of them."""
        try:
            self.load_lineage()
        except UnreadableFiles:
            return False
        return True

    def load_lineage(self) -> dict[str, Any]:
        """Content of the lineage file that stage `package` wrote."""
        return self._json(LINEAGE)

    def download_evidence(self, out: Path) -> Path:
        """Download the whole evidence folder into `out`; return its path."""
        out.mkdir(parents=True, exist_ok=True)
        with self._reading(EVIDENCE):
            return Path(self._client.download_artifacts(str(self._version.run_id), EVIDENCE, str(out)))

    def _table(self, path: str) -> pd.DataFrame:
        with self._reading(path):
            return pd.read_parquet(io.BytesIO(self._bytes(path)))

    def _json(self, path: str) -> dict[str, Any]:
        with self._reading(path):
            values: dict[str, Any] = json.loads(self._bytes(path))
            return values

    def _bytes(self, path: str) -> bytes:
        with TemporaryDirectory() as folder:
            return self._download(path, folder).read_bytes()

    def _download(self, path: str, folder: str) -> Path:
        return Path(self._client.download_artifacts(str(self._version.run_id), path, folder))

    def _names(self, folder: str) -> list[str]:
        """The names of what lies in a folder; none if there is no such folder."""
        return [
            PurePosixPath(info.path).name for info in self._client.list_artifacts(str(self._version.run_id), folder)
        ]

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        try:
            yield
        except (BadInput, MlflowException, OSError, ValueError) as error:
            if isinstance(error, MlflowException) and error.error_code not in MISSING:
                with mlflow_errors():
                    raise
            version = f"{self._version.name} version {self._version.version}"
            raise UnreadableFiles(
                f"{version}: {path} cannot be read from {self._version.source}: restore the files, or delete the "
                f"version in MLflow ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__})"
            ) from error
