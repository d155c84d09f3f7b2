"""The registered models of a registry, by name, version and alias."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cots.errors import BadInput
from cots.tracking.runs import connect, experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ENCODERS, INDEX = "cots-encoders", "cots-index"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"


class RegistryClient:
    """What MLflow keeps, asked in this project's words; its errors pass through.

    Attributes:
        client: of the registry.
    """

    def __init__(self) -> None:
        self.client: MlflowClient = connect()

    def model(self, name: str) -> Any:  # noqa: ANN401  mlflow's RegisteredModel is untyped
        """A registered model with tags and aliases; None where there is none of the name."""
        found = self.client.search_registered_models(f"name = '{name}'")
        return found[0] if found else None

    def at(self, alias: str) -> int | None:
        """The version of `cots-index` at an alias."""
        model = self.model(INDEX)
        return int(model.aliases[alias]) if model and alias in model.aliases else None

    def get(self, version: int) -> "ModelVersion":
        """A version of `cots-index`.

        Raises:
            BadInput: there is none of the number.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_model_version(INDEX, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            known = ", ".join(str(number(one)) for one in self.all()) or "none"
            raise BadInput(f"{INDEX} has no version {version}: there are {known}") from None

    def all(self) -> "list[ModelVersion]":
        """Every version of `cots-index`, the oldest first; none knows its aliases."""
        return sorted(self.client.search_model_versions(f"name = '{INDEX}'"), key=number)

    def found(self, name: str, tag: str, value: str) -> int | None:
        """The newest version of a model with this tag."""
        found = self.client.search_model_versions(f"name = '{name}' and tags.`{tag}` = '{value}'")
        return max(map(number, found), default=None)

    def register(self, name: str, files: Mapping[str, Path], tags: Mapping[str, str]) -> int:
        """A new version; its files are copied first, by the place they get: the originals may go."""
        if not self.model(name):
            self.client.create_registered_model(name)
        run = self.client.create_run(experiment_id(self.client), run_name=f"publish {name}").info
        for place, path in files.items():
            log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
            log(run.run_id, str(path), place or None)
        self.client.set_terminated(run.run_id)
        made = self.client.create_model_version(name, f"{run.artifact_uri}/{name}", run.run_id, tags=dict(tags))
        return number(made)

    def tag(self, version: int, name: str, value: str) -> None:
        """Tag a version of `cots-index`."""
        self.client.set_model_version_tag(INDEX, str(version), name, value)

    def set_alias(self, alias: str, version: int) -> None:
        """Let an alias of `cots-index` name a version."""
        self.client.set_registered_model_alias(INDEX, alias, str(version))


def number(version: "ModelVersion") -> int:
    """Versions are numbered from 1."""
    return int(version.version)
