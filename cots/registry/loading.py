"""From an address to a model: a registered version, an MLflow model folder, or a folder that training left."""

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
    """The encoders behind an address; what was fetched is not kept.

    Args:
        uri: a registered version (`models:/cots-index@champion`, `models:/cots-encoders/3`), an MLflow model folder,
            or a folder such as `models/finetuned/image-text`.

    Raises:
        BadInput: there is no such model.
        RunFailed: MLflow is down.
    """
    with TemporaryDirectory() as scratch:
        return DualEncoder.load(encoders_in(model_folder(uri, into=Path(scratch)), named=uri))


def encoders_in(folder: Path, *, named: str) -> Path:
    """Where the encoders lie in what `model_folder` gave.

    Args:
        folder: encoders, or an MLflow model that holds some.
        named: what it is called in errors.

    Raises:
        BadInput: it holds none.
    """
    if (folder / CONFIG).is_file():
        return folder
    if not (folder / "MLmodel").is_file():
        raise BadInput(f"{named} is neither a model folder nor an MLflow model folder")
    artifacts = Model.load(str(folder)).flavors["python_function"].get("artifacts", {})
    if "encoders" not in artifacts:
        raise BadInput(f"{named} is an MLflow model of another kind: it holds no encoders")
    return folder / str(artifacts["encoders"]["path"])


def model_folder(uri: str, *, into: Path | None = None) -> Path:
    """Where the files are, fetched if they are elsewhere.

    Args:
        uri: as for `load_encoders`.
        into: an existing folder that a registered model is copied to, even where the registry's files are local.

    Raises:
        BadInput: there is no such model.
        RunFailed: MLflow is down.
    """
    if "://" not in uri and not uri.startswith(("models:/", "runs:/")):
        if not Path(uri).is_dir():
            raise BadInput(f"no model {uri}: give a folder or an address such as {CHAMPION_URI}")
        return Path(uri)
    connect()
    try:
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(into) if into else None))
    except MlflowException as error:
        check_known(uri, error)
        raise RunFailed(f"cannot fetch {uri}: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise RunFailed(f"the files of {uri} are not where the registry says: {error}") from None


def check_known(uri: str, error: MlflowException) -> None:
    """Tell an address that the registry does not know from other troubles.

    Raises:
        BadInput: that is what the error says.
    """
    if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
        where = without_credentials(tracking_uri())
        raise BadInput(f"no model {uri} in {where}: run `dvc repro` and `cots registry publish` first") from None
