"""A version of the index loaded by the service, from the registry or from a folder."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd

from cots.digests import file_digest
from cots.errors import BadInput
from cots.file_names import LINEAGE
from cots.index.thumbnails import Thumbnails
from cots.registry.client import ENCODERS, INDEX
from cots.registry.packaged import read_package
from cots.registry.version_tags import unpack_tags
from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import Query
from cots.service.overview import build_overview
from cots.tracking.loading import PREFIX, fetch_model_folder, find_version

UNREGISTERED = "folder"


@dataclass(frozen=True, slots=True)
class VersionTarget:
    """The version that a URI resolves to at the moment.

    Attributes:
        uri: of the version itself, never an alias, which could move in the meantime.
        name: of the registered model.
        version: its number; for a folder, `folder-` and the beginning of the index's digest.
        tags: from the registry, or from the lineage file beside the folder.
    """

    uri: str
    name: str
    version: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class VersionView:
    """What clients can look up about a version, even after it has been replaced.

    Attributes:
        target: the version.
        encoders: digest of the encoders that built the index.
        items: one row per item.
        previews: thumbnails of the items.
        removed: rows of items that a later version no longer contains; they are hidden.
    """

    target: VersionTarget
    encoders: str
    items: pd.DataFrame
    previews: Thumbnails
    removed: frozenset[int] = frozenset()

    def hide_removed(self, later: Self) -> Self:
        """The view while a later version answers: items that it lacks, such as withdrawn ones, are hidden."""
        missing = ~self.items["id"].isin(later.items["id"]).to_numpy()
        return replace(self, removed=frozenset(missing.nonzero()[0].tolist()))

    def holds(self, row: int) -> bool:
        """Whether the row is an item that may be shown."""
        return row < len(self.items) and row not in self.removed

    @property
    def versions(self) -> dict[str, dict[str, str | None]]:
        """Versions of index and encoders, as included in every answer."""
        encoders = {"name": ENCODERS, "version": self.target.tags.get("encoders.version"), "digest": self.encoders}
        return {"index": {"name": self.target.name, "version": self.target.version}, "encoders": encoders}


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A loaded version: everything needed to answer a query.

    Attributes:
        view: its name, items and previews.
        search: encoders and index.
        overview: what the index holds, see `build_overview`.
        batch_size: queries encoded together.
        max_pixels: images with more pixels are refused without decoding.
        min_side: images with a shorter side are refused, pixels.
    """

    view: VersionView
    search: SearchEngine
    overview: Mapping[str, Any]
    batch_size: int
    max_pixels: int
    min_side: int

    @classmethod
    def load(cls, target: VersionTarget) -> Self:
        """Download and open a version and run one test query; the package's own code is not executed.

        Downloaded files are deleted after loading.

        Raises:
            BadInput: the version is missing, damaged, or its index is empty.
            RunFailed: MLflow is down.
        """
        with tempfile.TemporaryDirectory(prefix="cots-serve-") as scratch:
            folder = fetch_model_folder(target.uri, into=Path(scratch))
            paths, config = read_package(folder)
            search = SearchEngine.load(paths["encoders"], paths["index"])
            try:
                previews = Thumbnails(search.thumbnails)
            except ValueError as error:
                raise BadInput(f"{error}: run `dvc repro --force index package`") from None
        if not search([Query("a", 1)], batch_size=1)[0]:
            raise BadInput(f"{target.uri} returns no results: its index is empty")
        overview = build_overview(search, batch_size=config["batch_size"])
        return cls(VersionView(target, search.model.digest, search.items, previews), search, overview, **config)


def is_alias(uri: str) -> bool:
    """Whether a URI is an alias, which may point to another version later."""
    return uri.startswith(PREFIX) and "@" in uri


def resolve(uri: str) -> VersionTarget:
    """Resolve a URI to a version.

    Args:
        uri: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or an MLflow model folder.

    Raises:
        BadInput: the version does not exist.
        RunFailed: MLflow is down.
    """
    version = find_version(uri)
    if version is None:
        return _resolve_folder(fetch_model_folder(uri))
    number = str(version.version)
    return VersionTarget(f"{PREFIX}{version.name}/{number}", version.name, number, unpack_tags(version.tags))


def _resolve_folder(folder: Path) -> VersionTarget:
    paths, _ = read_package(folder)
    lineage = folder.parent / LINEAGE
    values: dict[str, Any] = json.loads(lineage.read_text(encoding="utf8")) if lineage.is_file() else {}
    version = f"{UNREGISTERED}-{file_digest(paths['index'] / 'index.faiss')[:12]}"
    tags = {name: value for name, value in values.items() if isinstance(value, str)}
    return VersionTarget(str(folder.absolute()), INDEX, version, tags)
