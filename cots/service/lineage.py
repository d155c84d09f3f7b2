"""Where an answer came from, from the tags of the version that gave it."""

from typing import Any

from cots.registry.versions import under
from cots.service.loaded_version import VersionView

DIGESTS = {
    "index_digest": "index.digest",
    "params_digest": "params.digest",
    "manifest_digest": "manifest.digest",
    "dvc_lock_digest": "dvc.lock.digest",
    "git_commit": "git.commit",
    "git_dirty": "git.dirty",
}
GROUPS = {"runs": "run.", "gate": "gate.", "metrics": "metrics."}


def version_lineage(shelf: VersionView) -> dict[str, Any]:
    """Versions, digests, commit, runs, the gate's decision and the metrics of a version."""
    tags = shelf.target.tags
    groups = {group: under(tags, prefix) for group, prefix in GROUPS.items()}
    return {"versions": shelf.versions, **{name: tags.get(tag) for name, tag in DIGESTS.items()}, **groups}


def item_lineage(shelf: VersionView, row: int) -> dict[str, Any]:
    """The same, and what the item in a row is."""
    item = shelf.items.iloc[row]
    shown = {name: item[name] for name in ("id", "media", "split", "origin")} | {"captions": list(item["captions"])}
    return version_lineage(shelf) | {"item": shown}
