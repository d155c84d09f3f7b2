"""Loads a model by URI: a registered version, an MLflow model folder, or a model folder written by training."""

from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import mlflow.artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from cots.errors import BadInput, RunFailed
from cots.models.dual_encoder import DualEncoder
from cots.models.model_folder import CONFIG
from cots.tracking.runs import connect, tracking_uri, without_credentials

CHAMPION_URI = "models:/cots-index@champion"


def load_encoders(uri: str) -> DualEncoder:
    """Load the encoders at a URI; downloaded files are deleted.

    Args:
        uri: a registered version (`models:/cots-index@champion`, `models:/cots-encoders/3`), an MLflow model folder,
            or a folder such as `models/finetuned/image-text`.

    Raises:
        BadInput: the model does not exist.
        RunFailed: MLflow is down.
    """
    with TemporaryDirectory() as scratch:
        return DualEncoder.load(find_encoders(fetch_model_folder(uri, into=Path(scratch)), name=uri))


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
    if not (folder / "MLmodel").is_file():
        raise BadInput(f"{name} is neither a model folder nor an MLflow model folder")
    artifacts = Model.load(str(folder)).flavors["python_function"].get("artifacts", {})
    if "encoders" not in artifacts:
        raise BadInput(f"{name} is an MLflow model without encoders: give a version of cots-encoders or cots-index")
    return folder / str(artifacts["encoders"]["path"])


def fetch_model_folder(uri: str, *, into: Path | None = None) -> Path:
    """Local folder of a model, downloaded if it is not on this machine.

    Args:
        uri: as for `load_encoders`.
        into: existing folder that a registered model is copied to, even if the registry's files are local.

    Raises:
        BadInput: the model does not exist.
        RunFailed: MLflow is down.
    """
    if "://" not in uri and not uri.startswith(("models:/", "runs:/")):
        if not Path(uri).is_dir():
            raise BadInput(f"no model {uri}: give a folder or a URI such as {CHAMPION_URI}")
        return Path(uri)
    connect()
    try:
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(into) if into else None))
    except MlflowException as error:
        raise_if_unknown(uri, error)
        raise RunFailed(f"cannot download {uri}: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise RunFailed(f"the files of {uri} are missing from the location in the registry: {error}") from None


def raise_if_unknown(uri: str, error: MlflowException) -> None:
    """Raise `BadInput` if MLflow's error says that the model does not exist; return for any other error.

    Raises:
        BadInput: the model does not exist.
    """
    if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
        registry = without_credentials(tracking_uri())
        raise BadInput(f"no model {uri} in {registry}: run `dvc repro` and `cots registry publish` first") from None
