"""Versions in MLflow's registry: what is published, which one is deployed, and back again.

Two registered models. Serving follows one alias, `cots-index@champion`; each version of `cots-index` names in a tag the
version of `cots-encoders` that made it, and the aliases of that model follow. Moves are written down in a third,
`cots-promotions`.
"""

import getpass
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cots.errors import BadInput, RunFailed
from cots.serving.evidence import EVIDENCE, Kept
from cots.serving.gate import Decision, gate
from cots.serving.judging import Judge
from cots.serving.lineage import content_digest, text_digest
from cots.serving.promotions import Move, Promotions
from cots.serving.tracking import connect, experiment_id, told_as_failed_run
from cots.serving.versions import Listed, changed, flat, measured, read_lineage, tags_of

ENCODERS, INDEX = "cots-encoders", "cots-index"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
FIRST = Decision(promote=True, reasons=("it is the first version",))
WITHDRAWN = "withdrawn."


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
        self._client: MlflowClient = connect()
        self._promotions = Promotions(self._client, INDEX)

    def publish(self, package: Path, runs: Path, lock: Path, *, judge: Judge) -> Published:
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
        with told_as_failed_run():
            tags = tags_of(lineage, runs, lock)
            encoders = self._encoders(package / "encoders", lineage, tags)
            version, new = self._index(package, tags | {"encoders.version": str(encoders)})
            if "gate.promote" not in self._get(version).tags:
                self._decide(version, package, lineage, judge)
            kept = self._get(version).tags
        champion = self._version_at(CHAMPION) == version
        return Published(version, new, champion, kept["gate.reasons"], json.loads(kept["gate.contest"]))

    def versions(self) -> list[Listed]:
        """All versions of `cots-index`, the newest first."""
        with told_as_failed_run():
            if not (model := self._model(INDEX)):
                return []
            by_version: dict[int, list[str]] = {}
            for alias, version in model.aliases.items():
                by_version.setdefault(int(version), []).append(alias)
            found = self._client.search_model_versions(f"name = '{INDEX}'")
        return [
            Listed.of(one, by_version.get(int(one.version), [])) for one in sorted(found, key=_number, reverse=True)
        ]

    def champion(self) -> Listed:
        """The deployed version.

        Raises:
            BadInput: none is deployed.
        """
        found = [one for one in self.versions() if CHAMPION in one.aliases]
        if not found:
            raise BadInput(f"no version of {INDEX} is deployed: run `dvc repro` and `cots registry publish`")
        return found[0]

    def listed(self, version: int) -> Listed:
        """One version.

        Raises:
            BadInput: there is no such version.
        """
        with told_as_failed_run():
            self._get(version)
        return next(one for one in self.versions() if one.version == version)

    def kept(self, version: int) -> Kept:
        """The files of a version.

        Raises:
            BadInput: there is no such version.
        """
        with told_as_failed_run():
            return Kept(self._client, self._get(version))

    def promote(self, version: int, *, why: str) -> bool:
        """Make a version the deployed one; the one before becomes `previous`.

        Returns:
            False where it was deployed already and nothing changed.

        Raises:
            BadInput: there is no such version, or it holds pictures that were withdrawn.
            RunFailed: another promotion came first.
        """
        with told_as_failed_run():
            follows = self._promotions.last()
            self._get(version)
            champion = self._version_at(CHAMPION)
            if champion == version:
                self._follow()
            else:
                self._move("promote", champion, version, why, follows)
        return champion != version

    def rollback(self, *, why: str) -> int:
        """Exchange `champion` and `previous`.

        Returns:
            The version that is deployed now.

        Raises:
            BadInput: there is no previous version, or it holds pictures that were withdrawn.
            RunFailed: another promotion came first.
        """
        with told_as_failed_run():
            follows = self._promotions.last()
            champion, previous = self._version_at(CHAMPION), self._version_at(PREVIOUS)
            if champion is None or previous is None:
                raise BadInput(f"there is no version of {INDEX} to go back to: see `cots registry list`")
            self._move("rollback", champion, previous, why, follows)
        return previous

    def history(self) -> list[Move]:
        """Every move of the champion, oldest first."""
        with told_as_failed_run():
            return self._promotions.moves()

    def difference(self, before: int, after: int) -> dict[str, dict[str, tuple[Any, Any]]]:
        """What differs between two versions, each value a pair.

        Returns:
            `parameters` by dotted name; `data`: digests, and how many samples each learnt from and holds; `metrics`.

        Raises:
            BadInput: there is no such version.
        """
        both = [self.listed(version) for version in (before, after)]
        kept = [self.kept(version) for version in (before, after)]
        with told_as_failed_run():
            parameters = [dict(flat(one.params(), "")) for one in kept]
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
        with told_as_failed_run():
            if self._model(INDEX):
                for one, reason in ids.items():
                    value = json.dumps({"id": one, "reason": reason})
                    self._client.set_registered_model_tag(INDEX, WITHDRAWN + text_digest(one)[:32], value)

    def _withdrawn(self) -> set[str]:
        tags = self._model(INDEX).tags
        return {json.loads(tags[name])["id"] for name in tags if name.startswith(WITHDRAWN)}

    def _encoders(self, folder: Path, lineage: Mapping[str, Any], tags: Mapping[str, str]) -> int:
        """The version that holds these encoders; registered where there is none."""
        digest = lineage["encoder.digest"]
        if found := self._found(ENCODERS, "encoder.digest", digest):
            return found
        if not folder.is_dir():
            raise BadInput(
                f"{folder} is missing and no version of {ENCODERS} has digest {digest[:12]}: run `dvc repro`"
            )
        return self._register(ENCODERS, {ENCODERS: folder}, tags)

    def _index(self, package: Path, tags: Mapping[str, str]) -> tuple[int, bool]:
        """The version that holds this content, and whether it is new."""
        folder = package / "index"
        content = content_digest(folder)
        if found := self._found(INDEX, "content.digest", content):
            return found, False
        files = {INDEX: folder, EVIDENCE: package / EVIDENCE, "": package / "lineage.json"}
        return self._register(INDEX, files, dict(tags) | {"content.digest": content}), True

    def _found(self, name: str, tag: str, value: str) -> int | None:
        found = self._client.search_model_versions(f"name = '{name}' and tags.`{tag}` = '{value}'")
        return max(map(_number, found), default=None)

    def _register(self, name: str, files: Mapping[str, Path], tags: Mapping[str, str]) -> int:
        """A new version; its files are copied first, by the place they get: the originals may go."""
        if not self._model(name):
            self._client.create_registered_model(name)
        run = self._client.create_run(experiment_id(self._client), run_name=f"publish {name}").info
        for place, path in files.items():
            log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
            log(run.run_id, str(path), place or None)
        self._client.set_terminated(run.run_id)
        made = self._client.create_model_version(name, f"{run.artifact_uri}/{name}", run.run_id, tags=dict(tags))
        return int(made.version)

    def _decide(self, version: int, package: Path, lineage: Mapping[str, Any], judge: Judge) -> None:
        """Let the gate compare a new version with the champion, keep what it says, and act on it."""
        champion = self._version_at(CHAMPION)
        decision, contest = FIRST, {}
        if champion not in (None, version):
            seen = judge.contest(self._client, self._get(champion), package, lineage)
            decision, contest = gate(seen, judge.rules), asdict(seen)
        if champion != version:
            self._tag(version, "gate.contest", json.dumps(contest))
            self._tag(version, "gate.reasons", "; ".join(decision.reasons))
        if decision.promote:
            self.promote(version, why="; ".join(decision.reasons))
        else:
            self._client.set_registered_model_alias(INDEX, CHALLENGER, str(version))
        self._tag(version, "gate.promote", str(decision.promote).lower())

    def _tag(self, version: int, name: str, value: str) -> None:
        self._client.set_model_version_tag(INDEX, str(version), name, value)

    def _move(
        self, what: Literal["promote", "rollback"], champion: int | None, version: int, why: str, follows: int
    ) -> None:
        """Write the move down, and move."""
        self._refuse_withdrawn(version)
        first = self._promotions.append(what, who=_who(), why=why, before=champion, after=version, follows=follows)
        if first:
            told = f"version {first.after} by {first.who} ({first.why})"
            raise RunFailed(f"another {first.what} came first, to {told}: see `cots registry list`, then repeat")
        self._settle()

    def _refuse_withdrawn(self, version: int) -> None:
        if (withdrawn := self._withdrawn()) and (held := withdrawn & self.kept(version).items()):
            names = ", ".join(sorted(held)[:3]) + (", ..." if len(held) > 3 else "")
            raise BadInput(
                f"{INDEX} version {version} holds withdrawn {names}: run `cots registry refresh` in its place"
            )

    def _settle(self) -> None:
        """Set the aliases as the last move says, and look again: a slower writer must not undo a later move."""
        while True:
            last = self._promotions.moves()[-1]
            # First what a rollback needs, then the one that serving follows, then the encoders'.
            if last.before is not None:
                self._client.set_registered_model_alias(INDEX, PREVIOUS, str(last.before))
            self._client.set_registered_model_alias(INDEX, CHAMPION, str(last.after))
            if self._version_at(CHALLENGER) == last.after:
                self._client.delete_registered_model_alias(INDEX, CHALLENGER)
            self._follow()
            if self._promotions.last() == last.number:
                return

    def _follow(self) -> None:
        """Let the aliases of the encoders say what those of the index say."""
        for alias in (CHAMPION, PREVIOUS):
            version = self._version_at(alias)
            if version is not None:
                encoders = self._get(version).tags["encoders.version"]
                self._client.set_registered_model_alias(ENCODERS, alias, encoders)

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
