"""Fast read-only access to a registry that is a local SQLite file, without importing MLflow.

`import mlflow` and its first connection take three seconds, reading the file 0.01 s. Every change goes through MLflow
(`cots.registry.registry`), and so does every read if the registry is a server or the file has another schema than the
installed release of MLflow writes.
"""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from cots.registry.client import INDEX
from cots.registry.promotions import PROMOTIONS, Promotion, select_valid
from cots.registry.versions import VersionInfo
from cots.tracking.store import local_store, require_project_folder

FILE, MODELS = "file", "models:/"
VERSIONS = """
    select version, creation_time, storage_location from model_versions
    where name = ? and workspace = 'default' and current_stage != 'Deleted_Internal'
"""
TAGS = "select version, key, value from model_version_tags where name = ? and workspace = 'default'"
ALIASES = "select alias, version from registered_model_aliases where name = ? and workspace = 'default'"


class Entry(NamedTuple):
    """A version of a registered model, with MLflow's field names."""

    version: int
    creation_timestamp: int  # milliseconds since 1970
    tags: Mapping[str, str]
    folder: str  # URI of its files


class LocalVersion(NamedTuple):
    """A registered version whose files are on this machine."""

    folder: Path
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """All versions of one registered model, newest first, and the version of each alias."""

    entries: list[Entry]
    aliases: Mapping[str, int]


def list_versions() -> list[VersionInfo]:
    """See `Registry.list_versions`.

    Raises:
        RunFailed: MLflow was needed, and is down or refuses.
    """
    model = read_model(INDEX)
    if model is None:
        from cots.registry.registry import Registry

        return Registry().list_versions()
    return [
        VersionInfo.from_version(entry, [alias for alias, version in model.aliases.items() if version == entry.version])
        for entry in model.entries
    ]


def list_promotions() -> list[Promotion]:
    """See `Registry.list_promotions`.

    Raises:
        RunFailed: MLflow was needed, and is down or refuses.
    """
    model = read_model(PROMOTIONS)
    if model is None:
        from cots.registry.registry import Registry

        return Registry().list_promotions()
    return select_valid(model.entries)


def find_local_version(uri: str) -> LocalVersion | None:
    """Folder and tags of a registered version if registry and files are on this machine, else None.

    Args:
        uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
    """
    name, separator, alias = uri.removeprefix(MODELS).partition("@")
    name, _, number = name.partition("/")
    model = read_model(name) if uri.startswith(MODELS) else None
    if model is None:
        return None
    version = model.aliases.get(alias) if separator else int(number) if number.isdecimal() else None
    for entry in model.entries:
        location = urlsplit(entry.folder)
        folder = Path(unquote(location.path))
        if entry.version == version and location.scheme == FILE and folder.is_dir():
            return LocalVersion(folder, entry.tags)
    return None


def read_model(name: str) -> RegisteredModel | None:
    """Read a model from the registry's SQLite file; None if the registry is elsewhere or has another schema.

    Raises:
        BadInput: the working folder is inside a project, and the registry is in the project's folder.
    """
    path = local_store()
    if "MLFLOW_REGISTRY_URI" in os.environ or path is None or not path.parent.is_dir():
        return None
    if not path.exists():
        require_project_folder(path)
        return RegisteredModel([], {})
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            tags: dict[int, dict[str, str]] = {}
            for version, key, value in file.execute(TAGS, (name,)):
                tags.setdefault(version, {})[key] = value
            rows = sorted(file.execute(VERSIONS, (name,)), reverse=True)
            entries = [Entry(version, created, tags.get(version, {}), folder) for version, created, folder in rows]
            return RegisteredModel(entries, dict(file.execute(ALIASES, (name,)).fetchall()))
    except sqlite3.DatabaseError:
        return None
