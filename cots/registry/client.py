"""Access to MLflow's model registry by name, version and alias."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cots.digests import text_digest
from cots.errors import BadInput, RunFailed
from cots.registry.version_tags import pack_tags
from cots.tracking.pipeline_run import PARENT_TAG
from cots.tracking.store import connect, get_or_create_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import RunInfo
    from mlflow.entities.model_registry import ModelVersion

ENCODERS, INDEX = "cots-encoders", "cots-index"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
REGISTERS = "registers"  # tag of a run: digest of what is registered from its files
ABOUT = {  # the registered models, for people who open them in MLflow
    ENCODERS: "Image and text encoders: texts or images in, unit vectors of one shared space out.",
    INDEX: "A search index with the encoders that made it: texts or images in, ranked images and videos out. Services "
    "follow the alias `champion`; `cots registry list` and `diff` show the versions.",
}


class RegistryClient:
    """Thin client of MLflow's model registry; MLflow's exceptions pass through unchanged.

    Args:
        project: see `connect`.

    Attributes:
        client: MLflow's own client.
    """

    def __init__(self, project: Path = Path()) -> None:
        self.client: MlflowClient = connect(project=project)

    def find_model(self, name: str) -> Any:  # noqa: ANN401  mlflow's RegisteredModel is untyped
        """The registered model of this name with its tags and aliases, or None."""
        models = self.client.search_registered_models(f"name = '{name}'")
        return models[0] if models else None

    def ensure_model(self, name: str) -> None:
        """Create a registered model if it does not exist."""
        if not self.find_model(name):
            self.client.create_registered_model(name, description=ABOUT.get(name))

    def find_by_alias(self, alias: str) -> int | None:
        """The version of `cots-index` that an alias points to, or None."""
        model = self.find_model(INDEX)
        return int(model.aliases[alias]) if model and alias in model.aliases else None

    def find_version(self, name: str, version: int) -> "ModelVersion | None":
        """A version of a registered model, or None if it does not exist or was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_model_version(name, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def get_version(self, version: int) -> "ModelVersion":
        """Look up a version of `cots-index`.

        Raises:
            BadInput: the version does not exist.
        """
        if entry := self.find_version(INDEX, version):
            return entry
        known = ", ".join(str(version_number(entry)) for entry in self.list_versions()) or "none"
        raise BadInput(f"{INDEX} has no version {version}; existing versions: {known}")

    def list_versions(self) -> "list[ModelVersion]":
        """Every version of `cots-index`, oldest first, without aliases: MLflow's search leaves them out."""
        return sorted(search_versions(self.client, f"name = '{INDEX}'"), key=version_number)

    def list_by_tag(self, name: str, tag: str, value: str) -> "list[ModelVersion]":
        """The versions of a model that carry this tag value, newest first."""
        versions = search_versions(self.client, f"name = '{name}' and tags.`{tag}` = '{value}'")
        return sorted(versions, key=version_number, reverse=True)

    def register(self, name: str, files: Mapping[str, Path], tags: Mapping[str, str], *, about: str) -> int:
        """Register a new version and return its number.

        Args:
            name: of the registered model; created if it does not exist.
            files: local files and folders by their destination in the version. They are copied into the artifact
                store, so the originals may be deleted afterwards.
            tags: of the version.
            about: what the version is, for people.

        Raises:
            RunFailed: the files cannot be stored where the registry wants them.
        """
        self.ensure_model(name)
        run = self._start_publish_run(name, tags)
        try:
            for destination, path in files.items():
                log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
                log(run.run_id, str(path), destination or None)
        except OSError as error:
            raise RunFailed(
                f"cannot store files in {run.artifact_uri} ({error.strerror}): make room or give access; if the "
                "project has moved, put a link to it at its old path"
            ) from error
        self.client.set_terminated(run.run_id)
        source = f"{run.artifact_uri}/{name}"
        version = self.client.create_model_version(name, source, run.run_id, tags=pack_tags(tags), description=about)
        return version_number(version)

    def _start_publish_run(self, name: str, tags: Mapping[str, str]) -> "RunInfo":
        """A new run for the files of a version, or the one of the same registration that was killed."""
        experiment = get_or_create_experiment(self.client)
        content = text_digest(json.dumps([name, dict(tags)], sort_keys=True))
        begun = f"attributes.status = 'RUNNING' and tags.`{REGISTERS}` = '{content}'"
        if killed := self.client.search_runs([experiment], begun, max_results=1):
            return killed[0].info
        nested = self._find_parent(tags)
        return self.client.create_run(experiment, run_name=f"publish {name}", tags={REGISTERS: content} | nested).info

    def _find_parent(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The tag that nests a run under that of the pipeline which made the version; empty if that is gone."""
        from mlflow.exceptions import MlflowException

        if "run.evaluate" not in tags:
            return {}
        try:
            evaluate = self.client.get_run(tags["run.evaluate"]).data.tags
        except MlflowException:
            return {}
        return {PARENT_TAG: evaluate[PARENT_TAG]} if PARENT_TAG in evaluate else {}

    def set_tag(self, version: int, name: str, value: str) -> None:
        """Tag a version of `cots-index`."""
        self.client.set_model_version_tag(INDEX, str(version), name, value)

    def set_alias(self, alias: str, version: int, *, name: str = INDEX) -> None:
        """Point an alias of a registered model to a version."""
        self.client.set_registered_model_alias(name, alias, str(version))

    def delete_alias(self, alias: str, *, name: str = INDEX) -> None:
        """Remove an alias of a registered model, if there is one."""
        model = self.find_model(name)
        if model and alias in model.aliases:
            self.client.delete_registered_model_alias(name, alias)


def search_versions(client: "MlflowClient", condition: str) -> "Iterator[ModelVersion]":
    """Every version that fulfils a condition, page by page."""
    page = client.search_model_versions(condition)
    yield from page
    while page.token:
        page = client.search_model_versions(condition, page_token=page.token)
        yield from page


def version_number(version: "ModelVersion") -> int:
    """The number of a version as an int, from 1."""
    return int(version.version)
