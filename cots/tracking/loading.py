"""Loads a model by name: a registered version, an MLflow or training folder, or a checkpoint of CLIP or SigLIP."""

from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import mlflow.artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from cots.digests import MLMODEL, verify_content
from cots.errors import BadInput, RunFailed, UnreadableFiles
from cots.models.dual_encoder import DualEncoder
from cots.models.loading import is_uri, load_model
from cots.models.model_folder import CONFIG
from cots.tracking.store import connect, mlflow_errors, tracking_uri, without_credentials

PREFIX = "models:/"


def load_encoders(uri: str) -> DualEncoder:
    """Load the encoders at a URI; files downloaded from the registry are deleted.

    Args:
        uri: a registered version (`models:/cots-index@champion`, `models:/cots-encoders/3`), an MLflow model folder,
            or another model as `load_model` describes it.

    Raises:
        BadInput: the model does not exist.
        RunFailed: MLflow is down.
    """
    uri = uri if is_uri(uri) else str(Path(uri).expanduser())
    if not is_uri(uri) and not (Path(uri) / MLMODEL).is_file():
        return load_model(uri)
    with TemporaryDirectory() as scratch:
        return DualEncoder.load(find_encoders(fetch_model_folder(uri, into=Path(scratch)), name=uri))


def load_start(uri: str) -> DualEncoder:
    """Load the model that a run starts from, and record its name, its digest and its own start in its config.

    Args:
        uri: as for `load_encoders`; for an alias, its version is recorded.

    Raises:
        BadInput: the model does not exist.
        RunFailed: MLflow is down.
    """
    uri = resolve_alias(uri)
    model = load_encoders(uri)
    origin = {"name": uri, "digest": model.digest}
    if "init_from" in model.config:
        origin["init_from"] = model.config["init_from"]
    model.config = model.config | {"init_from": origin}
    return model


def resolve_alias(uri: str) -> str:
    """The URI of the version to which an alias points now; other URIs are returned unchanged.

    Raises:
        BadInput: there is no such model or alias.
        RunFailed: MLflow is down.
    """
    version = find_version(uri) if "@" in uri else None
    return _exact_uri(version) if version else uri


def find_version(uri: str) -> ModelVersion | None:
    """The registered version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` names at present; None for other URIs.

    Raises:
        BadInput: there is no such model, alias or version.
        RunFailed: MLflow is down.
    """
    if not uri.startswith(PREFIX):
        return None
    name, at, alias = uri.removeprefix(PREFIX).partition("@")
    name, _, number = name.partition("/")
    if not at and not number.isdecimal():  # MLflow has other forms, which it resolves itself
        return None
    client = connect(create=False)
    try:
        return client.get_model_version_by_alias(name, alias) if at else client.get_model_version(name, number)
    except MlflowException as error:
        raise_if_unknown(uri, error)
        with mlflow_errors():
            raise


def find_encoders(folder: Path, *, name: str) -> Path:
    """Path of the encoders in a folder that `fetch_model_folder` returned.

    Args:
        folder: a model folder, or an MLflow model that contains one.
        name: of the model in error messages.

    Raises:
        BadInput: the folder contains no encoders.
    """
    if (folder / CONFIG).is_file():
        return folder
    if not (folder / MLMODEL).is_file():
        raise BadInput(f"{name} is neither a model folder nor an MLflow model folder")
    artifacts = Model.load(str(folder)).flavors["python_function"].get("artifacts", {})
    if "encoders" not in artifacts:
        raise BadInput(f"{name} is an MLflow model without encoders: give a version of cots-encoders or cots-index")
    return folder / str(artifacts["encoders"]["path"])


def fetch_model_folder(uri: str, *, into: Path | None = None) -> Path:
    """Local folder of a model, downloaded if it is not on this machine; files of a registered version are verified.

    Args:
        uri: as for `load_encoders`.
        into: existing folder that a registered model is copied to, even if the registry's files are local.

    Raises:
        BadInput: the model does not exist, or its files are not those that were registered.
        UnreadableFiles: the model is registered, but its files are missing.
        RunFailed: MLflow is down.
    """
    if not is_uri(uri):
        if not Path(uri).is_dir():
            raise BadInput(f"no model {uri}: give a folder or a URI such as models:/cots-index@champion")
        return Path(uri)
    connect(create=False)
    version = find_version(uri)
    exact = _exact_uri(version) if version else uri  # an alias may move in the meantime
    try:
        folder = Path(mlflow.artifacts.download_artifacts(exact, dst_path=str(into) if into else None))
    except MlflowException as error:
        raise_if_unknown(uri, error)
        raise RunFailed(without_credentials(f"cannot download {uri}: {str(error).splitlines()[0]}")) from error
    except OSError as error:
        raise UnreadableFiles(f"{_describe_missing(uri)} ({error})") from None
    if folder.is_dir() and not any(folder.iterdir()):  # MLflow makes an empty folder where files are missing
        raise UnreadableFiles(_describe_missing(uri))
    verify_content(folder, version.tags if version else {}, name=uri)
    return folder


def _describe_missing(uri: str) -> str:
    return (
        f"the files of {uri} are missing from the location in the registry: restore them, or deploy another version by "
        "`cots registry promote`"
    )


def _exact_uri(version: ModelVersion) -> str:
    return f"{PREFIX}{version.name}/{version.version}"


def raise_if_unknown(uri: str, error: MlflowException) -> None:
    """Raise `BadInput` if MLflow's error says that the model does not exist; return for any other error.

    Raises:
        BadInput: the model does not exist.
    """
    if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
        registry = without_credentials(tracking_uri())
        raise BadInput(
            f"no model {uri} in {registry}: see `cots registry list`; if it is empty, run `cots index FOLDER`, or "
            "`dvc repro` and `cots registry publish`"
        ) from None
