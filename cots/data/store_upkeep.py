"""Compares a store with the lists that name its objects: what is damaged, and what is no longer needed."""

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from cots.data.bucket import in_bucket
from cots.data.dvc_history import cached_in_folders
from cots.data.store import (
    LIST,
    RECORD_SUFFIX,
    KeptPart,
    ObjectList,
    Stat,
    StoredObject,
    kept_parts,
    list_store,
    object_name,
    parse_list,
    read_list,
    read_record,
    store_of,
)
from cots.digests import bytes_digest
from cots.errors import BadInput, RunFailed
from cots.file_names import DATA

OBJECT = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}(\.[0-9a-f]{8}\.partial)?")  # no other file of a store is ever removed
SECONDS_PER_DAY = 86400
FOLDERS = (  # that may hold a list; those that stages write come before those that copy their lists
    "data/*",
    "models/*",
    "models/*/*",
    "index",
    "runs/checkpoints",
    "package/*/artifacts/*",
)
UNFINISHED = (DATA, Path("runs/checkpoints"))  # where stages keep parts that are in no list yet


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
    """The folders of a project that hold a list."""
    return [path.parent for pattern in FOLDERS for path in sorted(project.glob(f"{pattern}/{LIST}"))]


def count_objects(project: Path) -> dict[str, int]:
    """How many objects the lists of a project name, by store."""
    names = defaultdict[str, set[str]](set)
    for listed in filter(None, map(read_list, listed_folders(project))):
        names[str(listed.store)] |= {stored.sha256 for stored in listed.parts.values()}
    return {store: len(objects) for store, objects in names.items()}


def find_project_damage(project: Path, *, digests: bool = False) -> Iterator[str]:
    """Parts of a project whose objects are not what list or record say, each with the reason and what to do.

    Each store is listed once, so that missing objects and those of another size are found. An object is named once.

    Args:
        project: the folder.
        digests: also read all objects and compare their digests.
    """
    stats, seen = dict[str, Mapping[str, Stat]](), set[Path]()
    for folder in listed_folders(project):
        store = store_of(folder)
        assert store is not None
        if str(store) not in stats:
            stats[str(store)] = list_store(store)
        for kept in kept_parts(folder):
            if kept.file not in seen and (damage := _find_damage(kept, stats[str(store)], digests=digests)):
                yield damage
            seen.add(kept.file)


def require_objects(project: Path) -> None:
    """Check that the store holds what the lists of a project's data name.

    Raises:
        RunFailed: an object is missing or has another size.
    """
    if damage := next(find_project_damage(project), None):
        raise RunFailed(f"{damage} (all: `cots data check`)")


def _find_damage(kept: KeptPart, stats: Mapping[str, Stat], *, digests: bool) -> str | None:
    stat = stats.get(object_name(kept.stored.sha256))
    if stat is None:
        return str(kept.missing())
    if stat.st_size != kept.stored.bytes:
        sizes = f"has {stat.st_size} bytes instead of {kept.stored.bytes}"
        return f"{kept.file}, which holds {kept.path}, {sizes}: {kept.remedy}"
    if digests and bytes_digest(kept.file.read_bytes()) != kept.stored.sha256:
        return str(kept.changed())
    return None


def find_unlisted(
    store: Path, projects: Iterable[Path], *, days: float, registered: Iterable[ObjectList] = ()
) -> Unlisted:
    """The objects of a store that no list names: of a project, of its DVC cache, or of a registered version.

    Args:
        store: as `prepare.store`.
        projects: folders of all projects that use it.
        registered: the lists of all registered versions.
        days: younger objects are needed, because a stage may be running whose list is not written yet.

    Raises:
        BadInput: no list names any of its objects, so this is not the project that uses it.
    """
    named, lists = set[str](), 0
    of_versions = (listed.parts.values() for listed in registered if str(listed.store) == str(store))
    for objects in chain(of_versions, *(_kept_objects(project, store) for project in projects)):
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
    records = [record for folder in UNFINISHED for record in (project / folder).rglob(f"*{RECORD_SUFFIX}")]
    if records:
        yield map(read_record, records)


def remove_unlisted(unlisted: Unlisted) -> None:
    """Remove the objects."""
    if in_bucket(unlisted.store):
        if unlisted.objects:  # s3fs fails on an empty list
            unlisted.store.filesystem.rm([f"{unlisted.store.key}/{name}" for name in unlisted.objects])
        return
    for name in unlisted.objects:
        (unlisted.store / name).unlink(missing_ok=True)
