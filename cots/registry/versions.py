"""Tags of registered versions: what they record, the lineage they give, and how two versions differ."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cots.digests import file_digest
from cots.errors import BadInput
from cots.file_names import LINEAGE
from cots.files import write_json
from cots.flatten import flatten
from cots.registry.client import CHAMPION, INDEX
from cots.registry.version_tags import unpack_tags

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from cots.registry.catalog import Entry

UNTAGGED = {"interval", "speed", "queries"}
SHORT = 12  # characters of a digest that people compare


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of `cots-index`.

    Attributes:
        version: of `cots-index`.
        encoders: version of `cots-encoders` that built the index; None if the version was registered by hand.
        aliases: that point to the version, sorted.
        created: UTC.
        tags: of the version, see `unpack_tags`.
    """

    version: int
    encoders: int | None
    aliases: tuple[str, ...]
    created: datetime
    tags: Mapping[str, str]

    @classmethod
    def from_version(cls, version: "ModelVersion | Entry", aliases: list[str]) -> Self:
        """Convert MLflow's version; `aliases` come separately because MLflow's search results lack them."""
        created, tags = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC), unpack_tags(version.tags)
        encoders = int(tags["encoders.version"]) if "encoders.version" in tags else None
        return cls(int(version.version), encoders, tuple(sorted(aliases)), created, tags)

    def lineage(self) -> dict[str, Any]:
        """Where this version came from: encoders, code, data, parameters, runs and the gate's decision.

        Returns:
            JSON-serializable nested mapping of strings and numbers.
        """
        tags = self.tags
        return {
            "index": {"version": self.version, "registered": self.created.isoformat(timespec="seconds")}
            | _pick(tags, {"digest": "index.digest", "content": "content.digest", "items": "items"}),
            "encoders": {"version": self.encoders} | _pick(tags, {"digest": "encoder.digest", "target": "target"}),
            "init_from": select_tags(tags, "init_from."),
            "code": _pick(tags, {"commit": "git.commit", "dirty": "git.dirty"}),
            "data": _pick(
                tags, {"manifest": "manifest.digest", "queries": "queries.digest", "dvc.lock": "dvc.lock.digest"}
            ),
            "parameters": tags.get("params.digest"),
            "runs": select_tags(tags, "run."),
            "metrics": read_metrics(tags),
            "gate": _pick(tags, {"promote": "gate.promote", "reasons": "gate.reasons"}),
            "aliases": list(self.aliases),
        }


def read_metrics(tags: Mapping[str, str]) -> dict[str, float]:
    """Metrics of a version by dotted name, without chance levels."""
    metrics = select_tags(tags, "metrics.")
    return {name: float(value) for name, value in metrics.items() if not name.startswith("chance")}


def are_comparable(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether the metrics of two versions, given their tags, are of the same test queries."""
    return "queries.digest" in before and before["queries.digest"] == after.get("queries.digest")


def select_tags(tags: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Tags whose names start with a prefix, by the rest of the name, sorted."""
    return {name.removeprefix(prefix): value for name, value in sorted(tags.items()) if name.startswith(prefix)}


def find_champion(versions: Iterable[VersionInfo]) -> VersionInfo | None:
    """The champion among the versions, or None."""
    return next((version for version in versions if CHAMPION in version.aliases), None)


def read_lineage(package: Path) -> dict[str, Any]:
    """Read the lineage file that stage `package` wrote.

    Raises:
        BadInput: the stage did not finish.
    """
    try:
        lineage: dict[str, Any] = json.loads((package / LINEAGE).read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{package} is not a complete package ({error}): run `dvc repro` first") from None
    return lineage


def write_runs(version: VersionInfo, folder: Path) -> None:
    """Write the MLflow run ids of a version's training in the format of the stages."""
    folder.mkdir()
    for name, run in select_tags(version.tags, "run.").items():
        write_json(folder / f"{name}.json", {"run_id": run})


def build_tags(lineage: Mapping[str, Any], runs: Path, lock: Path) -> dict[str, str]:
    """Tags of a new version: its lineage, MLflow run ids and metrics."""
    strings = {name: value for name, value in lineage.items() if isinstance(value, str)}
    run_ids = {
        f"run.{path.stem}": json.loads(path.read_text(encoding="utf8"))["run_id"] for path in runs.glob("*.json")
    }
    lock_digest = {"dvc.lock.digest": file_digest(lock)} if lock.is_file() else {}
    metrics = _metric_tags(lineage["metrics"].get(lineage["target"], {}))
    return strings | run_ids | lock_digest | metrics | {"items": str(lineage["items"])}


def describe(name: str, tags: Mapping[str, str]) -> str:
    """A version in a few sentences, for people who open it in MLflow.

    Args:
        name: of the registered model.
        tags: of the version.
    """
    encoders = f"Encoders of {tags['target']}, {tags['encoder.digest'][:SHORT]}"
    what = f"Index of {tags['items']} images and videos. {encoders}." if name == INDEX else f"{encoders}."
    metrics = read_metrics(tags)
    shown = [f"{metric} {value:.1f} %" for metric, value in metrics.items() if metric.endswith((".R1", ".R10"))]
    measured = f"Test split: RSUM {metrics['rsum']:.1f}, {', '.join(shown)}." if "rsum" in metrics else "Not measured."
    origin = {"Commit": "git.commit", "Data": "manifest.digest", "Parameters": "params.digest"}
    made_from = [f"{title} {tags[tag][:SHORT]}." for title, tag in origin.items() if tag in tags]
    return " ".join([what, measured, *made_from])


def _metric_tags(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Metrics and chance levels as tags, without intervals, speed and counts."""
    tagged = {name: value for name, value in flatten(metrics).items() if UNTAGGED.isdisjoint(name.split("."))}
    return {f"metrics.{name.replace('@', '')}": str(value) for name, value in tagged.items()}


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Pairs of differing values by name; None stands for a value missing on one side."""
    names = dict.fromkeys([*before, *after])
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def _pick(tags: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {name: tags[tag] for name, tag in names.items() if tag in tags}
