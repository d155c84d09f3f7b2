"""Compares a store with the lists that name its objects: what is damaged, and what is no longer needed."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cots.data.bucket import in_bucket
from cots.data.dvc_history import cached_in_folders
from cots.data.store import (
    LIST,
    RECORD_SUFFIX,
    ObjectList,
    Stat,
    StoredObject,
    list_store,
    object_name,
    object_path,
    parse_list,
    read_list,
    read_record,
)
from cots.digests import bytes_digest
from cots.errors import BadInput, RunFailed
from cots.file_names import DATA

OBJECT = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}(\.[0-9a-f]{8}\.partial)?")  # no other file of a store is ever removed
SECONDS_PER_DAY = 86400
WRITERS = {"shards": "prepare", "tokens": "tokenize"}  # stages, by the names of their folders in data/


class Unlisted(NamedTuple):
    """What no kept list names.

    Attributes:
        store: the store.
        objects: bytes of each, by its path in the store.
        total: how many objects the store holds.
        lists: how many lists were read.
    """

    store: Path
    objects: dict[str, int]
    total: int
    lists: int


def listed_folders(project: Path) -> list[Path]:
    """The folders of a project's data that hold a list."""
    return sorted(path.parent for path in (project / DATA).glob(f"*/{LIST}"))


def count_objects(project: Path) -> dict[str, int]:
    """How many objects the lists of a project's data name, by store."""
    counts = Counter[str]()
    for listed in filter(None, map(read_list, listed_folders(project))):
        counts[str(listed.store)] += len({stored.sha256 for stored in listed.parts.values()})
    return dict(counts)


def find_project_damage(project: Path, *, digests: bool = False) -> Iterator[str]:
    """Parts of a project's lists whose objects are not what they say, each with the reason and what to do.

    Each store is listed once, so that missing objects and those of another size are found.

    Args:
        project: the folder.
        digests: also read all objects and compare their digests.
    """
    stats = dict[str, Mapping[str, Stat]]()
    for folder in listed_folders(project):
        listed = read_list(folder)
        assert listed is not None
        if str(listed.store) not in stats:
            stats[str(listed.store)] = list_store(listed.store)
        again = f"run `dvc repro --force {WRITERS.get(folder.name, folder.name)}`"
        for damage in _find_damage(folder, listed, stats[str(listed.store)], digests=digests):
            yield f"{damage} {again}"


def require_objects(project: Path) -> None:
    """Check that the store holds what the lists of a project's data name.

    Raises:
        RunFailed: an object is missing or has another size.
    """
    if damage := next(find_project_damage(project), None):
        raise RunFailed(f"{damage} (all: `cots data check`)")


def _find_damage(folder: Path, listed: ObjectList, stats: Mapping[str, Stat], *, digests: bool) -> Iterator[str]:
    for name, stored in listed.parts.items():
        file = object_path(listed.store, stored.sha256)
        stat = stats.get(object_name(stored.sha256))
        if stat is None:
            yield f"{file}, which holds {folder / name}, is missing:"
        elif stat.st_size != stored.bytes:
            yield f"{file}, which holds {folder / name}, has {stat.st_size} bytes instead of {stored.bytes}:"
        elif digests and bytes_digest(file.read_bytes()) != stored.sha256:
            yield f"{file}, which holds {folder / name}, was changed: remove it and"


def find_unlisted(store: Path, projects: Iterable[Path], *, days: float) -> Unlisted:
    """The objects of a store that no list names: neither one of a project's data nor one in its DVC cache.

    Args:
        store: as `prepare.store`.
        projects: folders of all projects that use it.
        days: younger objects are needed, because a stage may be running whose list is not written yet.

    Raises:
        BadInput: no list names any of its objects, so this is not the project that uses it.
    """
    named, lists = set[str](), 0
    for project in projects:
        for objects in _kept_objects(project, store):
            named |= {object_name(stored.sha256) for stored in objects}
            lists += 1
    stats = {path: stat for path, stat in list_store(store).items() if OBJECT.fullmatch(path)}
    if stats and named.isdisjoint(stats):
        raise BadInput(f"no list here names an object of {store}: run it in the project's folder")
    oldest = time.time() - days * SECONDS_PER_DAY
    unlisted = {path: stat.st_size for path, stat in stats.items() if path not in named and stat.st_mtime <= oldest}
    return Unlisted(store, unlisted, len(stats), lists)


def _kept_objects(project: Path, store: Path) -> Iterator[Iterable[StoredObject]]:
    """What each list of a project names, and what the parts of an unfinished stage are."""
    lists = [folder / LIST for folder in listed_folders(project)]
    for path in [*lists, *cached_in_folders(LIST, project)]:
        listed = parse_list(path)
        if str(listed.store) == str(store):
            yield listed.parts.values()
    if records := list((project / DATA).rglob(f"*{RECORD_SUFFIX}")):
        yield map(read_record, records)


def remove_unlisted(unlisted: Unlisted) -> None:
    """Remove the objects."""
    if in_bucket(unlisted.store):
        unlisted.store.filesystem.rm([f"{unlisted.store.key}/{name}" for name in unlisted.objects])
        return
    for name in unlisted.objects:
        (unlisted.store / name).unlink(missing_ok=True)
