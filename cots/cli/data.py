"""`cots data`: merge data sets, describe labels, find what was trained on samples, withdraw them, tend the store."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cots.cli.describe import describe
from cots.cli.tables import table
from cots.errors import BadInput, RunFailed, UnreadableFiles
from cots.file_names import CHANGES_PATH, DATA, MANIFEST_PATH, WITHDRAWN_PATH
from cots.terminal import escape_controls

if TYPE_CHECKING:
    from cots.data.store import ObjectList
    from cots.registry.registry import Registry

data = typer.Typer(
    help="Merge data sets, describe labels, find what was trained on a sample, withdraw samples, tend the store.",
    no_args_is_help=True,
)
data.command()(describe)
Ids = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Ids of samples, as in the manifest and in search results.")
]
# By version: ids that it was trained on, and ids in its index; None if its files are missing.
Usage = Mapping[int, tuple[set[str], set[str]] | None]
COPIES = (DATA, Path("index"), Path("package"), Path("runs/vectors"), Path(".dvc/cache"))  # that may hold a sample
MERGEABLE: Mapping[str, Mapping[str, Any]] = {  # kinds of source whose samples are files; their keys besides the path
    "coco": {},
    "folder": {"holdout": {"val": 0.0, "test": 0.0}},
    "karpathy": {},
    "msrvtt": {"protocol": "full"},
}


@data.command()
def lineage(ids: Ids) -> None:
    """Show which versions were trained on a sample, and which have it in their index."""
    from cots.registry.registry import Registry

    typer.echo(_format_usage(ids, _find_usage(Registry(), ids)))


@data.command()
def withdraw(
    ids: Ids,
    reason: Annotated[str, typer.Option(help="Why; stored in withdrawn.csv and in the registry.")],
) -> None:
    """Take samples out of the deployed index at once, and show the versions that were trained on them.

    The source is not changed: withdrawn.csv keeps them out. Versions whose index holds them can no longer be deployed.
    Exit code 0 says that no withdrawn sample is in the deployed index.
    """
    from cots.data.changes import find_unused_images
    from cots.data.store_upkeep import count_objects
    from cots.data.withdrawn import add_withdrawn, read_withdrawn
    from cots.registry.client import INDEX
    from cots.registry.registry import Registry

    try:
        _check_known(ids)
    except RunFailed as error:
        raise RunFailed(f"nothing is withdrawn yet: {error}; then repeat the command") from None
    add_withdrawn(WITHDRAWN_PATH, dict.fromkeys(ids, reason))
    typer.echo(
        f"{WITHDRAWN_PATH} names {escape_controls(', '.join(ids))}: commit it; the next `dvc repro` works without them"
    )
    if copies := [str(path) for path in COPIES if path.exists()]:
        typer.echo(f"copies in {', '.join(copies)}: until `dvc repro`, then `dvc gc --workspace`")
    for store in count_objects(Path()):
        typer.echo(
            f"objects in {store}: until `dvc repro`, `dvc gc --workspace` and `cots data sweep --days 0 --remove`"
        )
    if unused := find_unused_images(CHANGES_PATH, read_withdrawn(WITHDRAWN_PATH)):
        names = ", ".join(map(str, unused))
        typer.echo(f"images that requests gave and no sample uses any more: {names}: they stay until you delete them")
    try:
        registry = Registry()
        registry.withdraw(dict.fromkeys(ids, reason))
    except RunFailed as error:
        raise RunFailed(f"{', '.join(ids)} may still be served: {error}; then repeat the command") from None
    from cots.withdraw import deploy_without_withdrawn

    version = deploy_without_withdrawn()
    typer.echo(f"{INDEX} version {version} is the champion" if version else "no deployed index has any of them")
    try:
        usage = _format_usage(ids, _find_usage(registry, ids))
    except RunFailed as error:
        raise RunFailed(f"they are withdrawn, but who was trained on them is unknown: {error}") from None
    typer.echo("\n" + usage)


@data.command()
@data.command(name="gather", hidden=True)  # old name
def merge(
    out: Annotated[
        Path, typer.Argument(help="The new folder, for `cots init folder --data` or `cots init clips --data`.")
    ],
    sources: Annotated[list[str], typer.Argument(metavar="KIND:PATH...", help=f"Kinds: {', '.join(MERGEABLE)}.")],
) -> None:
    """Merge several data sets of images and videos into one folder; each keeps its splits.

    Files are linked, or copied if they are on another disk. A folder without splits becomes training data as a whole;
    MSR-VTT keeps the splits of its release.
    """
    from cots.cli.files import writing
    from cots.config.source import SourceSection
    from cots.data.ingest.merge import merge

    parsed = [_parse_source(source) for source in sources]
    names = [path.resolve().name for _, path in parsed]
    if len(set(names)) < len(names):
        raise BadInput(f"data sets need different names: {', '.join(names)}")
    sections = [{"kind": kind, "path": path, **MERGEABLE[kind]} for kind, path in parsed]
    data_sets = {
        name: (path, SourceSection.model_validate({"source": section}).source.read())
        for name, (_, path), section in zip(names, parsed, sections, strict=True)
    }
    with writing(out):
        counts = merge(data_sets, out)
    typer.echo(table(["data set", "samples"], list(counts.items())))


@data.command()
def check(
    digests: Annotated[bool, typer.Option("--digests", help="Also read every object and compare its digest.")] = False,
) -> None:
    """Compare the project's lists with the store that holds what they name; exit code 1 if an object is damaged."""
    from cots.data.store_upkeep import count_objects, find_project_damage

    damaged = list(find_project_damage(Path(), digests=digests))
    for line in damaged:
        typer.echo(escape_controls(line))
    if damaged:
        raise RunFailed(f"{len(damaged)} parts of the data are damaged: {damaged[0]}")
    for store, count in count_objects(Path()).items():
        typer.echo(f"{count} objects in {store} are as the lists say")


@data.command()
def sweep(
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the objects; otherwise they are only counted.")
    ] = False,
    project: Annotated[
        list[Path] | None, typer.Option(help="Folder of a further project that uses the store; may be repeated.")
    ] = None,
    days: Annotated[float, typer.Option(min=0, help="Younger objects are kept, as a stage may be running.")] = 1.0,
) -> None:
    """Remove objects from the store that no list names: of the project, of DVC's cache, or of a registered version.

    `dvc gc` decides which earlier outputs stay in DVC's cache. Lists that only a remote holds do not count.
    """
    from cots.config.stages.prepare import PrepareParams
    from cots.data.store_upkeep import find_unlisted, remove_unlisted

    store = PrepareParams.load().prepare.store
    if store is None:
        raise BadInput("prepare.store is null: the data are in the project's folder, see `dvc gc`")
    projects = [Path(), *(project or [])]
    unlisted = find_unlisted(store, projects, days=days, registered=_registered_lists(projects))
    size = sum(unlisted.objects.values()) / 1e9
    found = f"{len(unlisted.objects)} of {unlisted.total} objects in {store} ({size:.3g} GB)"
    if remove:
        remove_unlisted(unlisted)
        typer.echo(
            f"{found} are removed; {unlisted.lists} lists name the others, or they are younger than {days:g} days"
        )
        return
    typer.echo(f"{found} are named by none of {unlisted.lists} lists; repeat with --remove to remove them")


def _registered_lists(projects: Sequence[Path]) -> Iterator["ObjectList"]:
    """The lists of all versions that are registered in the projects' registries, of which several may be one."""
    from cots.registry.registry import Registry
    from cots.tracking.store import local_store, tracking_uri

    for project in {tracking_uri(project): project for project in projects}.values():
        if (file := local_store(project)) is None or file.exists():
            yield from Registry(project).load_lists()


def _parse_source(source: str) -> tuple[str, Path]:
    kind, _, path = source.partition(":")
    if kind not in MERGEABLE or not path:
        raise BadInput(f"{source!r} is not KIND:PATH, where KIND is one of {', '.join(MERGEABLE)}")
    return kind, Path(path).expanduser()


def _check_known(ids: Sequence[str]) -> None:
    """Refuse ids that are neither in the data nor in a version, so that a typo withdraws nothing."""
    from cots.data.changes import read_optional_changes
    from cots.data.manifest import read_manifest
    from cots.data.withdrawn import read_withdrawn
    from cots.registry.registry import Registry

    in_data = {*read_withdrawn(WITHDRAWN_PATH), *read_optional_changes(CHANGES_PATH)}
    if MANIFEST_PATH.is_file():
        in_data |= set(read_manifest(MANIFEST_PATH)["id"])
    unknown = set(ids) - in_data
    if not unknown:
        return
    for usage in _find_usage(Registry(), ids).values():
        if usage is None:  # it may hold any of them
            return
        unknown -= set().union(*usage)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise BadInput(f"no sample {names}: it is neither in {MANIFEST_PATH} nor in a registered version")


def _find_usage(registry: "Registry", ids: Sequence[str]) -> Usage:
    """The versions that use one of the ids, or may do so."""
    withdrawn_ids, usage = set(ids), dict[int, tuple[set[str], set[str]] | None]()
    for info in registry.list_versions():
        artifacts = registry.get_artifacts(info.version)
        try:
            used = withdrawn_ids & artifacts.load_training_ids(), withdrawn_ids & artifacts.load_item_ids()
        except UnreadableFiles:
            usage[info.version] = None
            continue
        if any(used):
            usage[info.version] = used
    return usage


def _format_usage(ids: Sequence[str], usage: Usage) -> str:
    if not usage:
        return f"no registered version was trained on {escape_controls(', '.join(ids))} or has it in its index"
    rows = [
        [version, *(["files are missing"] * 2 if used is None else (", ".join(sorted(ids)) or "-" for ids in used))]
        for version, used in usage.items()
    ]
    return table(["version", "trained on", "in its index"], rows)
