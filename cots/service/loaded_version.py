"""One version of the search as the service holds it, from the registry or from a folder."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd
from mlflow.exceptions import MlflowException

from cots.digests import file_digest
from cots.errors import BadInput
from cots.file_names import LINEAGE
from cots.index.thumbnails import Thumbnails
from cots.registry.client import ENCODERS, INDEX
from cots.registry.loading import check_known, model_folder
from cots.registry.packaged import describe
from cots.search.engine import SearchEngine
from cots.search.queries import Query
from cots.tracking.runs import connect, mlflow_errors

PREFIX = "models:/"
UNREGISTERED = "folder"


@dataclass(frozen=True, slots=True)
class VersionTarget:
    """A version that an address stands for at the moment.

    Attributes:
        uri: what is fetched: never an alias, which could move in the meantime.
        name: of the registered model.
        version: its number; of a folder `folder-` and the beginning of the index's digest.
        tags: what the registry, or the package around the folder, says of it.
    """

    uri: str
    name: str
    version: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class VersionView:
    """What can still be looked up of a version after it has answered.

    Attributes:
        target: which version it is.
        encoders: digest of the encoders that made the index.
        items: one row an item.
        previews: of the items.
        gone: rows of items that a later version no longer holds; they are not shown any more.
    """

    target: VersionTarget
    encoders: str
    items: pd.DataFrame
    previews: Thumbnails
    gone: frozenset[int] = frozenset()

    def beside(self, later: Self) -> Self:
        """The same while a later version answers: a sample that was withdrawn in between is shown by neither."""
        lost = ~self.items["id"].isin(later.items["id"]).to_numpy()
        return replace(self, gone=frozenset(lost.nonzero()[0].tolist()))

    def holds(self, row: int) -> bool:
        """Whether there is such an item to be shown."""
        return row < len(self.items) and row not in self.gone

    @property
    def versions(self) -> dict[str, dict[str, str | None]]:
        """What answers, in every answer."""
        encoders = {"name": ENCODERS, "version": self.target.tags.get("encoders.version"), "digest": self.encoders}
        return {"index": {"name": self.target.name, "version": self.target.version}, "encoders": encoders}


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A loaded version: everything that an answer is made of.

    Attributes:
        shelf: its name, items and previews.
        search: encoders and index.
        batch: queries encoded at once; max_pixels, min_side: of pictures, as the version was packed.
    """

    view: VersionView
    search: SearchEngine
    batch: int
    max_pixels: int
    min_side: int

    @classmethod
    def load(cls, target: VersionTarget) -> Self:
        """Fetch and open a version, and ask it one query. The package's code is not run, nor are its files kept.

        Raises:
            BadInput: it is missing, damaged, or cannot answer.
            RunFailed: MLflow is down.
        """
        with tempfile.TemporaryDirectory(prefix="cots-serve-") as scratch:
            folder = model_folder(target.uri, into=Path(scratch))
            paths, config = describe(folder)
            search = SearchEngine.load(paths["encoders"], paths["index"])
            try:
                previews = Thumbnails(search.previews)
            except ValueError as error:
                raise BadInput(f"{error}: run `dvc repro --force index package`") from None
        deployed = cls(VersionView(target, search.model.digest, search.items, previews), search, **config)
        deployed._try()
        return deployed

    def _try(self) -> None:
        if not self.search([Query("a", 1)], batch=1)[0]:
            raise BadInput(f"{self.view.target.uri} finds nothing: its index is empty")


def follows(uri: str) -> bool:
    """Whether an address may stand for another version later."""
    return uri.startswith(PREFIX) and "@" in uri


def resolve(uri: str) -> VersionTarget:
    """The version that an address stands for now.

    Args:
        uri: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or an MLflow model folder.

    Raises:
        BadInput: there is no such version.
        RunFailed: MLflow is down.
    """
    if not uri.startswith(PREFIX):
        return _of_folder(model_folder(uri))
    name, followed, alias = uri.removeprefix(PREFIX).partition("@")
    name, _, number = name.partition("/")
    client = connect()
    try:
        found = client.get_model_version_by_alias(name, alias) if followed else client.get_model_version(name, number)
    except MlflowException as error:
        check_known(uri, error)
        with mlflow_errors():
            raise
    return VersionTarget(f"{PREFIX}{name}/{found.version}", name, str(found.version), dict(found.tags))


def _of_folder(folder: Path) -> VersionTarget:
    paths, _ = describe(folder)
    lineage = folder.parent / LINEAGE
    told: dict[str, Any] = json.loads(lineage.read_text(encoding="utf8")) if lineage.is_file() else {}
    version = f"{UNREGISTERED}-{file_digest(paths['index'] / 'index.faiss')[:12]}"
    tags = {name: value for name, value in told.items() if isinstance(value, str)}
    return VersionTarget(str(folder.absolute()), INDEX, version, tags)
