"""Publishing, promoting and rolling back versions in MLflow's model registry.

There are two registered models. Serving follows one alias, `cots-index@champion`. A tag of each `cots-index` version
names the `cots-encoders` version that built it, and the aliases of `cots-encoders` follow those of `cots-index`.
Promotions are recorded in a third model, `cots-promotions`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cots.data.store import ObjectList
from cots.digests import content_digest
from cots.errors import BadInput, UnreadableFiles
from cots.file_names import LINEAGE
from cots.flatten import flatten
from cots.registry.alias_manager import AliasManager, format_ids
from cots.registry.client import CHALLENGER, CHAMPION, ENCODERS, INDEX, RegistryClient, search_versions, version_number
from cots.registry.evidence import EVIDENCE, VersionArtifacts
from cots.registry.gate import Decision, decide
from cots.registry.promotions import Promotion
from cots.registry.versions import (
    VersionInfo,
    are_comparable,
    build_tags,
    describe,
    diff,
    find_champion,
    read_lineage,
    read_metrics,
)
from cots.tracking.store import mlflow_errors

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    # Imported for types only: it imports the encoders and so torch, which only a new version needs.
    from cots.registry.challenger import ChallengerEvaluator

DEPLOYED = Decision(promote=True, reasons=("it was deployed before the gate had decided",))


@dataclass(frozen=True, slots=True)
class PublishResult:
    """The outcome of publishing a package.

    Attributes:
        version: of `cots-index`.
        new: False if the same content was registered before.
        champion: whether this version is the champion now.
        reasons: of the gate's decision when the version was registered.
        contest: the gate's inputs, see `GateInputs.as_json`; empty for the first version.
        overruled: the last promotion or rollback and its reason, if the champion is not what the gate decided.
    """

    version: int
    new: bool
    champion: bool
    reasons: str
    contest: Mapping[str, Any]
    overruled: str | None = None

    @classmethod
    def from_tags(cls, version: int, tags: Mapping[str, str], *, new: bool, champion: bool) -> Self:
        """The outcome, with the decision as the tags of the version have it."""
        reasons, contest = tags.get("gate.reasons", "-"), json.loads(tags.get("gate.contest", "{}"))
        return cls(version, new, champion, reasons, contest)


class Registry:
    """The registered models of one MLflow server or SQLite file.

    Args:
        project: folder whose SQLite file it is, if there is no server.

    Raises:
        RunFailed: by every method, if MLflow is down or refuses.
    """

    def __init__(self, project: Path = Path()) -> None:
        self._client = RegistryClient(project)
        self._aliases = AliasManager(self._client)

    def publish(self, package: Path, runs: Path, lock: Path, *, evaluator: "ChallengerEvaluator") -> PublishResult:
        """Register both models of a package, once per content, and promote the index if the gate accepts it.

        If the call is killed, repeating it completes the work: a version is complete when it appears, its tag
        `gate.promote` is written last, and a version without that tag goes through the gate again.

        Args:
            package: output of stage `package`; the folder `encoders` may be missing if they are registered already.
            runs: folder of JSON files that hold the MLflow run id of each stage.
            lock: path of `dvc.lock`, which may not exist.
            evaluator: measures package and champion for the gate.

        Raises:
            BadInput: there is no package, or its encoders are neither in it nor registered.
            RunFailed: another promotion happened at the same time.
        """
        lineage = read_lineage(package)
        with mlflow_errors():
            version, new = self._register(package, runs, lock, lineage)
            if "gate.promote" not in self._client.get_version(version).tags:
                self._decide(version, package, lineage, evaluator)
            champion, tags = self._client.find_by_alias(CHAMPION) == version, self._client.get_version(version).tags
            result = PublishResult.from_tags(version, tags, new=new, champion=champion)
            if champion == (tags["gate.promote"] == "true") or not (moves := self._aliases.list_promotions()):
                return result
            return replace(result, overruled=f"{moves[-1].what} to version {moves[-1].after}: {moves[-1].why}")

    def deploy(self, package: Path, runs: Path, lock: Path, *, why: str) -> int:
        """Register a package and make it the champion without asking the gate; return its version.

        Args:
            package: see `publish`; likewise `runs` and `lock`.
            why: reason, stored in the history and as the gate's.

        Raises:
            BadInput: there is no package, or it contains withdrawn samples.
            RunFailed: another promotion happened at the same time.
        """
        with mlflow_errors():
            version, _ = self._register(package, runs, lock, read_lineage(package))
            self._set_decision(version, Decision(promote=True, reasons=(why,)), {})
            self._client.set_tag(version, "gate.promote", "true")  # nothing is left to decide: `promote` is repeatable
            self._aliases.promote(version, why=why)
        return version

    def list_versions(self) -> list[VersionInfo]:
        """All versions of `cots-index`, newest first."""
        with mlflow_errors():
            if not (model := self._client.find_model(INDEX)):
                return []
            aliases: dict[int, list[str]] = {}
            for alias, number in model.aliases.items():
                aliases.setdefault(int(number), []).append(alias)
            versions = reversed(self._client.list_versions())
            return [VersionInfo.from_version(version, aliases.get(version_number(version), [])) for version in versions]

    def get_champion(self) -> VersionInfo:
        """Look up the deployed version.

        Raises:
            BadInput: no version is deployed.
        """
        champion = find_champion(self.list_versions())
        if champion is None:
            raise BadInput(
                f"no version of {INDEX} is deployed: `cots registry promote` deploys one of `cots registry list`; "
                "if there is none, run `cots index FOLDER`, or `dvc repro` and `cots registry publish`"
            )
        return champion

    def needs_validation(self) -> bool:
        """Whether the champion's encoders have learnt from the project's data, which stage `validate` is about.

        Raises:
            BadInput: no version is deployed.
            UnreadableFiles: its files are missing.
        """
        return bool(self.get_artifacts(self.get_champion().version).load_training_ids())

    def get_version(self, version: int) -> VersionInfo:
        """Look up a version of `cots-index`.

        Raises:
            BadInput: the version does not exist.
        """
        with mlflow_errors():
            self._client.get_version(version)
        return next(info for info in self.list_versions() if info.version == version)

    def get_artifacts(self, version: int) -> VersionArtifacts:
        """Give access to the files stored with a version.

        Raises:
            BadInput: the version does not exist.
        """
        with mlflow_errors():
            return VersionArtifacts(self._client.client, self._client.get_version(version))

    def promote(self, version: int, *, why: str) -> bool:
        """Make a version the champion; the former champion becomes `previous`.

        Returns:
            False if the version was the champion already, so that nothing changed.

        Raises:
            BadInput: the version does not exist, contains withdrawn samples, or its files are missing.
            RunFailed: another promotion happened at the same time.
        """
        with mlflow_errors():
            return self._aliases.promote(version, why=why)

    def rollback(self, *, why: str) -> int:
        """Swap `champion` and `previous`.

        Returns:
            The new champion.

        Raises:
            BadInput: there is no previous version, it contains withdrawn samples, or its files are missing.
            RunFailed: another promotion happened at the same time.
        """
        with mlflow_errors():
            return self._aliases.rollback(why=why)

    def complete_promotion(self) -> Promotion | None:
        """Complete the last promotion or rollback if it was killed after it was recorded.

        Returns:
            The promotion; None if there was nothing to complete, or its version may no longer be deployed.
        """
        with mlflow_errors():
            return self._aliases.complete_last()

    def list_promotions(self) -> list[Promotion]:
        """Every change of the champion, oldest first."""
        with mlflow_errors():
            return self._aliases.list_promotions()

    def find_last_deployed(self) -> VersionInfo | None:
        """The champion or, if its alias or version was deleted, the existing version that was deployed last."""
        versions = {info.version: info for info in self.list_versions()}
        if champion := find_champion(versions.values()):
            return champion
        deployed = [promotion.after for promotion in reversed(self.list_promotions())]
        return next((versions[number] for number in deployed if number in versions), None)

    def diff_versions(self, before: int, after: int) -> dict[str, dict[str, tuple[Any, Any]]]:
        """Differences between two versions as pairs (before, after).

        Returns:
            By section: `parameters` by dotted name; `data`: digests and the numbers of training samples and indexed
            items; `metrics` by dotted name, only if they are of the same test queries.

        Raises:
            BadInput: the version does not exist.
        """
        infos = [self.get_version(version) for version in (before, after)]
        artifacts = [self.get_artifacts(version) for version in (before, after)]
        with mlflow_errors():
            parameters = [
                {name: str(value) for name, value in flatten(files.load_params()).items()} for files in artifacts
            ]
            training_ids = [files.load_training_ids() for files in artifacts]
            item_ids = [files.load_item_ids() for files in artifacts]
        data = [
            info.lineage()["data"] | {"learnt from": len(trained_on), "items": len(indexed)}
            for info, trained_on, indexed in zip(infos, training_ids, item_ids, strict=True)
        ]
        exclusive = {"items only there": (len(item_ids[0] - item_ids[1]), len(item_ids[1] - item_ids[0]))}
        sections = {
            "parameters": diff(*parameters),
            "data": diff(*data) | (exclusive if any(exclusive["items only there"]) else {}),
        }
        if are_comparable(*(info.tags for info in infos)):
            sections["metrics"] = diff(*(read_metrics(info.tags) for info in infos))
        return sections

    def find_withdrawn(self, version: int) -> list[str]:
        """Withdrawn samples in the index of a version, sorted.

        Raises:
            BadInput: the version does not exist.
            UnreadableFiles: its files are missing.
        """
        with mlflow_errors():
            return self._aliases.find_withdrawn(version)

    def load_lists(self) -> list[ObjectList]:
        """The lists of objects of all versions of both models.

        Raises:
            UnreadableFiles: the files of a version are missing, so nobody knows what it needs.
        """
        with mlflow_errors():
            client = self._client.client
            versions = [v for name in (ENCODERS, INDEX) for v in search_versions(client, f"name = '{name}'")]
            return [listed for version in versions for listed in VersionArtifacts(client, version).load_lists()]

    def withdraw(self, ids: Mapping[str, str]) -> None:
        """Record samples that no deployed version may contain any more.

        Args:
            ids: reason of the withdrawal by sample id.
        """
        with mlflow_errors():
            self._aliases.withdraw(ids)

    def _register(self, package: Path, runs: Path, lock: Path, lineage: Mapping[str, Any]) -> tuple[int, bool]:
        """The version of `cots-index` with the package's content, and whether it was registered just now."""
        tags = build_tags(lineage, runs, lock)
        encoders = self._register_encoders(package / "encoders", lineage, tags)
        return self._register_index(package, tags | {"encoders.version": str(encoders)})

    def _register_encoders(self, folder: Path, lineage: Mapping[str, Any], tags: Mapping[str, str]) -> int:
        """The version of `cots-encoders` with this digest, registered if it does not exist."""
        digest = lineage["encoder.digest"]
        if versions := self._client.list_by_tag(ENCODERS, "encoder.digest", digest):
            return version_number(versions[0])
        if folder.is_dir():
            return self._client.register(ENCODERS, {ENCODERS: folder}, tags, about=describe(ENCODERS, tags))
        if indices := self._client.list_by_tag(INDEX, "encoder.digest", digest):
            return int(indices[0].tags["encoders.version"])  # deleted since; each index holds its own copy
        raise BadInput(f"{folder} is missing and no version of {ENCODERS} has digest {digest[:12]}: run `dvc repro`")

    def _register_index(self, package: Path, tags: Mapping[str, str]) -> tuple[int, bool]:
        """The version of `cots-index` with this content and readable files, and whether it was registered just now."""
        folder = package / "index"
        content = content_digest(folder)
        for version in self._client.list_by_tag(INDEX, "content.digest", content):
            if VersionArtifacts(self._client.client, version).is_readable():
                number = version_number(version)
                self._client.set_tag(number, "manifest.digest", tags["manifest.digest"])
                return number, False
        files = {INDEX: folder, EVIDENCE: package / EVIDENCE, "": package / LINEAGE}
        complete = dict(tags) | {"content.digest": content}
        return self._client.register(INDEX, files, complete, about=describe(INDEX, complete)), True

    def _decide(
        self, version: int, package: Path, lineage: Mapping[str, Any], evaluator: "ChallengerEvaluator"
    ) -> None:
        """Run the gate on a new version and act on its decision."""
        champion, rival, contest = self._client.find_by_alias(CHAMPION), self._find_rival(version), {}
        if champion == version:
            decision = DEPLOYED
        elif withdrawn := self._aliases.find_withdrawn(version):
            decision = Decision(promote=False, reasons=(f"it contains withdrawn samples: {format_ids(withdrawn)}",))
        elif rival:
            try:
                inputs = evaluator.collect_gate_inputs(self._client.client, rival, package, lineage)
                decision, contest = decide(inputs, evaluator.rules), inputs.as_json()
            except UnreadableFiles as error:
                decision = Decision(promote=False, reasons=(f"nothing to compare it with: {error}",))
        else:
            decision = evaluator.decide_first(package)
        if rival and champion is None:
            compared = f"no version is deployed, so it was compared with version {rival.version}"
            decision = Decision(decision.promote, (compared, *decision.reasons))
        self._record(version, decision, contest)

    def _find_rival(self, version: int) -> "ModelVersion | None":
        """The version that a new one must beat: the champion or, if its alias is gone, the last that was deployed.

        None only if there is no other version.
        """
        others = {version_number(other): other for other in self._client.list_versions()}
        others.pop(version)
        deployed = [promotion.after for promotion in reversed(self._aliases.list_promotions())]
        preferred = [self._client.find_by_alias(CHAMPION), *deployed, max(others, default=None)]
        return next((others[number] for number in preferred if number in others), None)

    def _record(self, version: int, decision: Decision, contest: Mapping[str, Any]) -> None:
        """Store a decision in tags, and promote the version or make it challenger; the last tag says that all is done.

        A champion keeps the reasons for which it was promoted.
        """
        champion = self._client.find_by_alias(CHAMPION)
        if champion != version or "gate.reasons" not in self._client.get_version(version).tags:
            self._set_decision(version, decision, contest)
        if decision.promote:
            self._aliases.promote(version, why="; ".join(decision.reasons))
        else:
            self._client.set_alias(CHALLENGER, version)
        self._client.set_tag(version, "gate.promote", str(decision.promote).lower())

    def _set_decision(self, version: int, decision: Decision, contest: Mapping[str, Any]) -> None:
        self._client.set_tag(version, "gate.contest", json.dumps(contest))
        self._client.set_tag(version, "gate.reasons", "; ".join(decision.reasons))
