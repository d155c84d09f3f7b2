"""What a registered version tells of itself: its tags, where it came from, how two of them differ."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cots.digests import file_digest
from cots.errors import BadInput
from cots.file_names import LINEAGE
from cots.flatten import flatten
from cots.registry.client import CHAMPION

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from cots.registry.catalog import Entry

UNTAGGED = {"interval", "speed", "queries"}


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of `cots-index` as people want to see it."""

    version: int
    encoders: int
    aliases: tuple[str, ...]
    created: datetime
    tags: Mapping[str, str]

    @classmethod
    def of(cls, version: "ModelVersion | Entry", aliases: list[str]) -> Self:
        """MLflow's version; it does not know its aliases where it was found by a search."""
        created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
        number, encoders = int(version.version), int(version.tags["encoders.version"])
        return cls(number, encoders, tuple(sorted(aliases)), created, version.tags)

    def lineage(self) -> dict[str, Any]:
        """From this version back to what made it: encoders, code, data, parameters, runs, the gate's decision.

        Returns:
            Ready for JSON; every value a text, a number or a mapping of such.
        """
        tags = self.tags
        return {
            "index": {"version": self.version, "registered": self.created.isoformat(timespec="seconds")}
            | _named(tags, {"digest": "index.digest", "content": "content.digest", "items": "items"}),
            "encoders": {"version": self.encoders, "digest": tags["encoder.digest"], "target": tags["target"]},
            "code": _named(tags, {"commit": "git.commit", "dirty": "git.dirty"}),
            "data": _named(
                tags, {"manifest": "manifest.digest", "queries": "queries.digest", "dvc.lock": "dvc.lock.digest"}
            ),
            "parameters": tags["params.digest"],
            "runs": under(tags, "run."),
            "metrics": measured(tags),
            "gate": _named(tags, {"promote": "gate.promote", "reasons": "gate.reasons"}),
            "aliases": list(self.aliases),
        }


def measured(tags: Mapping[str, str]) -> dict[str, float]:
    """What was measured of a version, by dotted name, chance levels left out."""
    found = under(tags, "metrics.")
    return {name: float(value) for name, value in found.items() if not name.startswith("chance")}


def under(tags: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Tags whose names begin with a prefix, by the rest of their names, in order."""
    return {name.removeprefix(prefix): value for name, value in sorted(tags.items()) if name.startswith(prefix)}


def deployed(versions: Iterable[VersionInfo]) -> VersionInfo | None:
    """The champion, if there is one."""
    return next((one for one in versions if CHAMPION in one.aliases), None)


def read_lineage(package: Path) -> dict[str, Any]:
    """What stage `package` wrote down.

    Raises:
        BadInput: it did not finish.
    """
    try:
        lineage: dict[str, Any] = json.loads((package / LINEAGE).read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{package} is no finished package ({error}): run `dvc repro` first") from None
    return lineage


def tags_of(lineage: Mapping[str, Any], runs: Path, lock: Path) -> dict[str, str]:
    """What every version says of itself: lineage as it was packed, the runs behind it, what was measured."""
    kept = {name: value for name, value in lineage.items() if isinstance(value, str)}
    found = {f"run.{path.stem}": json.loads(path.read_text(encoding="utf8"))["run_id"] for path in runs.glob("*.json")}
    locked = {"dvc.lock.digest": file_digest(lock)} if lock.is_file() else {}
    figures = _figures(lineage["metrics"][lineage["target"]])
    return kept | found | locked | figures | {"items": str(lineage["items"])}


def _figures(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Scores and chance levels as tags, without intervals, speed and counts."""
    kept = {name: value for name, value in flatten(metrics).items() if UNTAGGED.isdisjoint(name.split("."))}
    return {f"metrics.{name.replace('@', '')}": str(value) for name, value in kept.items()}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs, by name; None where one side lacks it."""
    names = dict.fromkeys([*before, *after])
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def _named(tags: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {name: tags[tag] for name, tag in names.items() if tag in tags}
