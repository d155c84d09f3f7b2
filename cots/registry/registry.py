"""Versions in MLflow's registry: what is published, which one is deployed, and back again.

Two registered models. Serving follows one alias, `cots-index@champion`; each version of `cots-index` names in a tag the
version of `cots-encoders` that made it, and the aliases of that model follow. Moves are written down in a third,
`cots-promotions`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cots.digests import content_digest
from cots.errors import BadInput
from cots.file_names import LINEAGE
from cots.flatten import flatten
from cots.registry.alias_manager import AliasManager
from cots.registry.client import CHALLENGER, CHAMPION, ENCODERS, INDEX, RegistryClient, number
from cots.registry.evidence import EVIDENCE, VersionArtifacts
from cots.registry.gate import Decision, decide
from cots.registry.promotions import Promotion
from cots.registry.versions import VersionInfo, changed, deployed, measured, read_lineage, tags_of
from cots.tracking.runs import mlflow_errors

if TYPE_CHECKING:
    from cots.registry.challenger import (
        ChallengerEvaluator,
    )  # imports encoders and so torch, which only a new version needs

FIRST = Decision(promote=True, reasons=("it is the first version",))


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a package.

    Attributes:
        version: of `cots-index`.
        new: False where the same content was registered before.
        champion: whether it is the deployed version now.
        reasons: of the decision that was taken when it was registered.
        contest: what the gate saw of both, ready for JSON; empty for the first version.
    """

    version: int
    new: bool
    champion: bool
    reasons: str
    contest: Mapping[str, Any]


class Registry:
    """The registered models of one MLflow server or file.

    Raises:
        RunFailed: from every method, when MLflow is down or refuses.
    """

    def __init__(self) -> None:
        self._models = RegistryClient()
        self._champion = AliasManager(self._models)

    def publish(self, package: Path, runs: Path, lock: Path, *, judge: "ChallengerEvaluator") -> Published:
        """Register both models of a package, once for each content, and promote if the gate lets it pass.

        Whatever kills it leaves a state from which the same call goes on: a version is complete when it appears, its
        tag `gate.promote` is written last, and a version without it is judged again.

        Args:
            package: what stage `package` wrote; without a folder `encoders` where they are registered already.
            runs: files that name the MLflow runs of the stages.
            lock: `dvc.lock`, if there is one.
            judge: compares it with the champion.

        Raises:
            BadInput: there is no package, or its encoders are nowhere.
            RunFailed: another promotion came first.
        """
        lineage = read_lineage(package)
        with mlflow_errors():
            tags = tags_of(lineage, runs, lock)
            encoders = self._encoders(package / "encoders", lineage, tags)
            version, new = self._index(package, tags | {"encoders.version": str(encoders)})
            if "gate.promote" not in self._models.get(version).tags:
                self._decide(version, package, lineage, judge)
            kept = self._models.get(version).tags
        champion = self._models.at(CHAMPION) == version
        return Published(version, new, champion, kept["gate.reasons"], json.loads(kept["gate.contest"]))

    def versions(self) -> list[VersionInfo]:
        """All versions of `cots-index`, the newest first."""
        with mlflow_errors():
            if not (model := self._models.model(INDEX)):
                return []
            by_version: dict[int, list[str]] = {}
            for alias, version in model.aliases.items():
                by_version.setdefault(int(version), []).append(alias)
            return [VersionInfo.of(one, by_version.get(number(one), [])) for one in reversed(self._models.all())]

    def champion(self) -> VersionInfo:
        """The deployed version.

        Raises:
            BadInput: none is deployed.
        """
        found = deployed(self.versions())
        if found is None:
            raise BadInput(f"no version of {INDEX} is deployed: run `dvc repro` and `cots registry publish`")
        return found

    def listed(self, version: int) -> VersionInfo:
        """One version.

        Raises:
            BadInput: there is no such version.
        """
        with mlflow_errors():
            self._models.get(version)
        return next(one for one in self.versions() if one.version == version)

    def kept(self, version: int) -> VersionArtifacts:
        """The files of a version.

        Raises:
            BadInput: there is no such version.
        """
        with mlflow_errors():
            return VersionArtifacts(self._models.client, self._models.get(version))

    def promote(self, version: int, *, why: str) -> bool:
        """Make a version the deployed one; the one before becomes `previous`.

        Returns:
            False where it was deployed already and nothing changed.

        Raises:
            BadInput: there is no such version, or it holds pictures that were withdrawn.
            RunFailed: another promotion came first.
        """
        with mlflow_errors():
            return self._champion.promote(version, why=why)

    def rollback(self, *, why: str) -> int:
        """Exchange `champion` and `previous`.

        Returns:
            The version that is deployed now.

        Raises:
            BadInput: there is no previous version, or it holds pictures that were withdrawn.
            RunFailed: another promotion came first.
        """
        with mlflow_errors():
            return self._champion.rollback(why=why)

    def history(self) -> list[Promotion]:
        """Every move of the champion, oldest first."""
        with mlflow_errors():
            return self._champion.promotions()

    def difference(self, before: int, after: int) -> dict[str, dict[str, tuple[Any, Any]]]:
        """What differs between two versions, each value a pair.

        Returns:
            `parameters` by dotted name; `data`: digests, and how many samples each learnt from and holds; `metrics`.

        Raises:
            BadInput: there is no such version.
        """
        both = [self.listed(version) for version in (before, after)]
        kept = [self.kept(version) for version in (before, after)]
        with mlflow_errors():
            parameters = [{name: str(value) for name, value in flatten(one.params()).items()} for one in kept]
            learnt, items = [one.learnt() for one in kept], [one.items() for one in kept]
        data = [
            one.lineage()["data"] | {"learnt from": len(seen), "items": len(held)}
            for one, seen, held in zip(both, learnt, items, strict=True)
        ]
        apart = {"items only there": (len(items[0] - items[1]), len(items[1] - items[0]))}
        return {
            "parameters": changed(*parameters),
            "data": changed(*data) | (apart if any(apart["items only there"]) else {}),
            "metrics": changed(*(measured(one.tags) for one in both)),
        }

    def withdraw(self, ids: Mapping[str, str]) -> None:
        """Write down which pictures no version may be deployed with any more.

        Args:
            ids: reasons by id.
        """
        with mlflow_errors():
            self._champion.withdraw(ids)

    def _encoders(self, folder: Path, lineage: Mapping[str, Any], tags: Mapping[str, str]) -> int:
        """The version that holds these encoders; registered where there is none."""
        digest = lineage["encoder.digest"]
        if found := self._models.found(ENCODERS, "encoder.digest", digest):
            return found
        if not folder.is_dir():
            raise BadInput(
                f"{folder} is missing and no version of {ENCODERS} has digest {digest[:12]}: run `dvc repro`"
            )
        return self._models.register(ENCODERS, {ENCODERS: folder}, tags)

    def _index(self, package: Path, tags: Mapping[str, str]) -> tuple[int, bool]:
        """The version that holds this content, and whether it is new."""
        folder = package / "index"
        content = content_digest(folder)
        if found := self._models.found(INDEX, "content.digest", content):
            return found, False
        files = {INDEX: folder, EVIDENCE: package / EVIDENCE, "": package / LINEAGE}
        return self._models.register(INDEX, files, dict(tags) | {"content.digest": content}), True

    def _decide(self, version: int, package: Path, lineage: Mapping[str, Any], judge: "ChallengerEvaluator") -> None:
        """Let the gate compare a new version with the champion, keep what it says, and act on it."""
        champion = self._models.at(CHAMPION)
        decision, contest = FIRST, {}
        if champion not in (None, version):
            seen = judge.gate_inputs(self._models.client, self._models.get(champion), package, lineage)
            decision, contest = decide(seen, judge.rules), asdict(seen)
        if champion != version:
            self._models.tag(version, "gate.contest", json.dumps(contest))
            self._models.tag(version, "gate.reasons", "; ".join(decision.reasons))
        if decision.promote:
            self._champion.promote(version, why="; ".join(decision.reasons))
        else:
            self._models.set_alias(CHALLENGER, version)
        self._models.tag(version, "gate.promote", str(decision.promote).lower())
