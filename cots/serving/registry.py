"""Versions in MLflow's registry: what is published, which one is deployed, and back again.

Two registered models. Serving follows one alias, `cots-index@champion`; each version of `cots-index` names in a tag the
version of `cots-encoders` that made it, and the aliases of that model follow.
"""

import getpass
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cots.errors import BadInput
from cots.serving.gate import Decision, gate
from cots.serving.lineage import content_digest, file_digest
from cots.serving.tracking import connect, experiment_id, told_as_failed_run

ENCODERS, INDEX = "cots-encoders", "cots-index"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
FIRST = Decision(promote=True, reasons=("it is the first version",))


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a package.

    Attributes:
        version: of `cots-index`.
        new: False where the same content was registered before.
        champion: whether it is the deployed version now.
        reasons: of the decision that was taken when it was registered.
    """

    version: int
    new: bool
    champion: bool
    reasons: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One version of `cots-index` as people want to see it."""

    version: int
    encoders: int
    aliases: tuple[str, ...]
    created: datetime
    tags: Mapping[str, str]


class Registry:
    """The two registered models of one MLflow server or file.

    Raises:
        RunFailed: from every method, when MLflow is down or refuses.
    """

    def __init__(self) -> None:
        self._client: MlflowClient = connect()

    def publish(self, package: Path, runs: Path, lock: Path) -> Published:
        """Register both models of a package, once for each content, and promote if the gate lets it pass.

        Args:
            package: what stage `package` wrote.
            runs: files that name the MLflow runs of the stages.
            lock: `dvc.lock`, if there is one.

        Raises:
            BadInput: there is no package.
        """
        lineage = _lineage(package)
        with told_as_failed_run():
            tags = _tags(lineage, runs, lock)
            encoders, _ = self._register(ENCODERS, package / "encoders", tags)
            version, new = self._register(INDEX, package / "index", tags | {"encoders.version": str(encoders)})
            if "gate.promote" not in self._get(version).tags:  # new, or registered by a run that was cut off here
                self._decide(version, lineage)
            champion = self._version_at(CHAMPION) == version
            return Published(version, new, champion, self._get(version).tags.get("gate.reasons", ""))

    def versions(self) -> list[Listed]:
        """All versions of `cots-index`, the newest first."""
        with told_as_failed_run():
            if not (model := self._model(INDEX)):
                return []
            by_version: dict[int, list[str]] = {}
            for alias, version in model.aliases.items():
                by_version.setdefault(int(version), []).append(alias)
            found = self._client.search_model_versions(f"name = '{INDEX}'")
        return [_listed(one, by_version.get(int(one.version), [])) for one in sorted(found, key=_number, reverse=True)]

    def promote(self, version: int, *, why: str) -> bool:
        """Make a version the deployed one; the one before becomes `previous`.

        Returns:
            False where it was deployed already and nothing changed.

        Raises:
            BadInput: there is no such version.
        """
        with told_as_failed_run():
            self._get(version)
            champion = self._version_at(CHAMPION)
            if champion != version:
                self._move(champion=version, previous=champion)
                self._remember("promote", champion, version, why)
            else:
                self._follow()
            return champion != version

    def rollback(self, *, why: str) -> int:
        """Exchange `champion` and `previous`.

        Returns:
            The version that is deployed now.

        Raises:
            BadInput: there is no previous version.
        """
        with told_as_failed_run():
            champion, previous = self._version_at(CHAMPION), self._version_at(PREVIOUS)
            if champion is None or previous is None:
                raise BadInput(f"there is no version of {INDEX} to go back to: see `cots registry list`")
            self._move(champion=previous, previous=champion)
            self._remember("rollback", champion, previous, why)
        return previous

    def history(self) -> list[dict[str, Any]]:
        """Every move of the champion, oldest first: what, when, who, why, from and to which version."""
        with told_as_failed_run():
            model = self._model(INDEX)
        tags = model.tags if model else {}
        return [json.loads(tags[name]) for name in sorted(tags) if name.startswith("history.")]

    def _register(self, name: str, folder: Path, tags: Mapping[str, str]) -> tuple[int, bool]:
        """The version that holds this content, and whether it is new. The files are copied: the folder may go."""
        content = content_digest(folder)
        if not self._model(name):
            self._client.create_registered_model(name)
        found = self._client.search_model_versions(f"name = '{name}' and tags.`content.digest` = '{content}'")
        if found:
            return max(map(_number, found)), False
        run = self._client.create_run(experiment_id(self._client), run_name=f"publish {name}").info
        self._client.log_artifacts(run.run_id, str(folder), name)
        self._client.set_terminated(run.run_id)
        made = self._client.create_model_version(
            name,
            f"{run.artifact_uri}/{name}",
            run.run_id,
            tags=dict(tags) | {"content.digest": content},
        )
        return int(made.version), True

    def _decide(self, version: int, lineage: Mapping[str, Any]) -> None:
        """Let the gate compare a new version with the champion, keep what it says, and act on it."""
        champion = self._version_at(CHAMPION)
        measured = {"rsum": float(lineage["metrics"][lineage["target"]]["rsum"])}
        decision = FIRST
        if champion is not None:
            decision = gate({"rsum": float(self._get(champion).tags["metrics.rsum"])}, measured)
        reasons = "; ".join(decision.reasons)
        self._client.set_model_version_tag(INDEX, str(version), "gate.promote", str(decision.promote).lower())
        self._client.set_model_version_tag(INDEX, str(version), "gate.reasons", reasons)
        self._client.set_registered_model_alias(INDEX, CHALLENGER, str(version))
        if decision.promote:
            self.promote(version, why=reasons)

    def _move(self, *, champion: int, previous: int | None) -> None:
        """Set the aliases: first what a rollback needs, then the one that serving follows, then the encoders'."""
        if previous is not None:
            self._client.set_registered_model_alias(INDEX, PREVIOUS, str(previous))
        self._client.set_registered_model_alias(INDEX, CHAMPION, str(champion))
        if self._version_at(CHALLENGER) == champion:
            self._client.delete_registered_model_alias(INDEX, CHALLENGER)
        self._follow()

    def _follow(self) -> None:
        """Let the aliases of the encoders say what those of the index say."""
        for alias in (CHAMPION, PREVIOUS):
            version = self._version_at(alias)
            if version is not None:
                encoders = self._get(version).tags["encoders.version"]
                self._client.set_registered_model_alias(ENCODERS, alias, encoders)

    def _remember(self, what: str, before: int | None, after: int, why: str) -> None:
        """Aliases have no history: it is kept in tags of the model."""
        number = len(self.history()) + 1
        now = datetime.now(UTC).isoformat(timespec="seconds")
        move = {"what": what, "when": now, "who": _who(), "why": why, "from": before, "to": after}
        self._client.set_registered_model_tag(INDEX, f"history.{number:06d}", json.dumps(move))

    def _model(self, name: str) -> Any:  # noqa: ANN401  mlflow's RegisteredModel is untyped
        found = self._client.search_registered_models(f"name = '{name}'")
        return found[0] if found else None

    def _version_at(self, alias: str) -> int | None:
        model = self._model(INDEX)
        return int(model.aliases[alias]) if model and alias in model.aliases else None

    def _get(self, version: int) -> ModelVersion:
        try:
            return self._client.get_model_version(INDEX, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            known = ", ".join(str(one.version) for one in reversed(self.versions())) or "none"
            raise BadInput(f"{INDEX} has no version {version}: there are {known}") from None


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def _number(version: ModelVersion) -> int:
    return int(version.version)


def _listed(version: ModelVersion, aliases: list[str]) -> Listed:
    created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    encoders = int(version.tags["encoders.version"])
    return Listed(_number(version), encoders, tuple(sorted(aliases)), created, version.tags)


def _lineage(package: Path) -> dict[str, Any]:
    try:
        lineage: dict[str, Any] = json.loads((package / "lineage.json").read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{package} is no finished package ({error}): run `dvc repro` first") from None
    return lineage


def _tags(lineage: Mapping[str, Any], runs: Path, lock: Path) -> dict[str, str]:
    """What every version says of itself: lineage as it was packed, the runs behind it, what was measured."""
    kept = {name: value for name, value in lineage.items() if isinstance(value, str)}
    found = {f"run.{path.stem}": json.loads(path.read_text(encoding="utf8"))["run_id"] for path in runs.glob("*.json")}
    locked = {"dvc.lock.digest": file_digest(lock)} if lock.is_file() else {}
    return kept | found | locked | _flat("metrics", lineage["metrics"][lineage["target"]])


def _flat(prefix: str, value: object) -> dict[str, str]:
    """Nested numbers by dotted name, without what is no result."""
    if not isinstance(value, dict):
        return {prefix: f"{value}"}
    shown = {key: inner for key, inner in value.items() if key not in ("interval", "speed", "queries")}
    return {
        name: text
        for key, inner in shown.items()
        for name, text in _flat(f"{prefix}.{key.replace('@', '')}", inner).items()
    }
