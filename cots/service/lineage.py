"""Lineage of versions and items, read from the tags of the version."""

from typing import Any

from cots.registry.versions import select_tags
from cots.service.loaded_version import VersionView

DIGESTS = {
    "index_digest": "index.digest",
    "params_digest": "params.digest",
    "manifest_digest": "manifest.digest",
    "dvc_lock_digest": "dvc.lock.digest",
    "git_commit": "git.commit",
    "git_dirty": "git.dirty",
}
GROUPS = {"init_from": "init_from.", "runs": "run.", "gate": "gate.", "metrics": "metrics."}


def version_lineage(view: VersionView) -> dict[str, Any]:
    """Digests, commit, what training began with, MLflow runs, gate decision and metrics of a version."""
    tags = view.target.tags
    groups = {group: select_tags(tags, prefix) for group, prefix in GROUPS.items()}
    return {"versions": view.versions, **{name: tags.get(tag) for name, tag in DIGESTS.items()}, **groups}


def item_lineage(view: VersionView, row: int) -> dict[str, Any]:
    """Lineage of a version together with the item in a row of its index."""
    item = view.items.iloc[row]
    fields = {name: item[name] for name in ("id", "media", "split", "origin")} | {"captions": list(item["captions"])}
    return version_lineage(view) | {"item": fields}
