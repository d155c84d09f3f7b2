"""Access to MLflow's model registry by name, version and alias."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cots.errors import BadInput
from cots.tracking.runs import connect, get_or_create_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ENCODERS, INDEX = "cots-encoders", "cots-index"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"


class RegistryClient:
    """Thin client of MLflow's model registry; MLflow's exceptions pass through unchanged.

    Attributes:
        client: MLflow's own client.
    """

    def __init__(self) -> None:
        self.client: MlflowClient = connect()

    def find_model(self, name: str) -> Any:  # noqa: ANN401  mlflow's RegisteredModel is untyped
        """The registered model of this name with its tags and aliases, or None."""
        models = self.client.search_registered_models(f"name = '{name}'")
        return models[0] if models else None

    def find_by_alias(self, alias: str) -> int | None:
        """The version of `cots-index` that an alias points to, or None."""
        model = self.find_model(INDEX)
        return int(model.aliases[alias]) if model and alias in model.aliases else None

    def get_version(self, version: int) -> "ModelVersion":
        """Look up a version of `cots-index`.

        Raises:
            BadInput: the version does not exist.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_model_version(INDEX, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            known = ", ".join(str(version_number(version)) for version in self.list_versions()) or "none"
            raise BadInput(f"{INDEX} has no version {version}; existing versions: {known}") from None

    def list_versions(self) -> "list[ModelVersion]":
        """Every version of `cots-index`, oldest first, without aliases: MLflow's search leaves them out."""
        return sorted(self.client.search_model_versions(f"name = '{INDEX}'"), key=version_number)

    def find_by_tag(self, name: str, tag: str, value: str) -> int | None:
        """The newest version of a model that carries this tag value, or None."""
        versions = self.client.search_model_versions(f"name = '{name}' and tags.`{tag}` = '{value}'")
        return max(map(version_number, versions), default=None)

    def register(self, name: str, files: Mapping[str, Path], tags: Mapping[str, str]) -> int:
        """Register a new version and return its number.

        Args:
            name: of the registered model; created if it does not exist.
            files: local files and folders by their destination in the version. They are copied into the artifact
                store, so the originals may be deleted afterwards.
            tags: of the version.
        """
        if not self.find_model(name):
            self.client.create_registered_model(name)
        run = self.client.create_run(get_or_create_experiment(self.client), run_name=f"publish {name}").info
        for destination, path in files.items():
            log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
            log(run.run_id, str(path), destination or None)
        self.client.set_terminated(run.run_id)
        version = self.client.create_model_version(name, f"{run.artifact_uri}/{name}", run.run_id, tags=dict(tags))
        return version_number(version)

    def set_tag(self, version: int, name: str, value: str) -> None:
        """Tag a version of `cots-index`."""
        self.client.set_model_version_tag(INDEX, str(version), name, value)

    def set_alias(self, alias: str, version: int) -> None:
        """Point an alias of `cots-index` to a version."""
        self.client.set_registered_model_alias(INDEX, alias, str(version))


def version_number(version: "ModelVersion") -> int:
    """The number of a version as an int, from 1."""
    return int(version.version)
