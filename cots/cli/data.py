"""`cots data`: merge data sets, see which versions were trained on a sample, and withdraw it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cots.cli.tables import table
from cots.errors import BadInput

if TYPE_CHECKING:
    from cots.registry.registry import Registry

data = typer.Typer(
    help="Merge data sets, see which versions were trained on a sample, withdraw samples.",
    no_args_is_help=True,
)
Ids = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Ids of samples, as in the manifest and in search results.")
]
Usage = Mapping[int, tuple[set[str], set[str]]]  # by version: ids that it was trained on, ids in its index
MERGED: Mapping[str, Mapping[str, Any]] = {  # kinds of source whose samples are files, and their keys besides the path
    "coco": {},
    "folder": {"holdout": {"val": 0.0, "test": 0.0}},
    "karpathy": {},
    "msrvtt": {"protocol": "full"},
}
MANIFEST, WITHDRAWN = Path("data/manifest.parquet"), Path("withdrawn.csv")


@data.command()
def lineage(ids: Ids) -> None:
    """Show which versions were trained on a sample, and which have it in their index."""
    from cots.registry.registry import Registry

    typer.echo(_format_usage(ids, _usage(Registry(), ids)))


@data.command()
def withdraw(
    ids: Ids,
    reason: Annotated[str, typer.Option(help="Why; stored in withdrawn.csv and in the registry.")],
) -> None:
    """Take samples out of the data and the deployed index, and name the versions that were trained on them.

    The source is not changed: withdrawn.csv keeps them out. Versions whose index holds them can no longer be deployed.
    """
    from cots.cli.registry import refresh
    from cots.data.withdrawn import add_withdrawn
    from cots.registry.registry import Registry

    registry = Registry()
    usage = _usage(registry, ids)
    _check_known(ids, usage)
    add_withdrawn(WITHDRAWN, dict.fromkeys(ids, reason))
    registry.withdraw(dict.fromkeys(ids, reason))
    typer.echo(_format_usage(ids, usage))
    if registry.list_versions():
        refresh()
    typer.echo(f"\n{WITHDRAWN} names {', '.join(ids)}: commit it; the next `dvc repro` trains without them")


@data.command()
@data.command(name="gather", hidden=True)  # its name in 0.1
def merge(
    out: Annotated[
        Path, typer.Argument(help="The new folder, for `cots init folder --data` or `cots init clips --data`.")
    ],
    sources: Annotated[list[str], typer.Argument(metavar="KIND:PATH...", help=f"Kinds: {', '.join(MERGED)}.")],
) -> None:
    """Merge several data sets of images and videos into one folder; each keeps its splits.

    Files are linked, or copied if they are on another disk. A folder without splits becomes training data as a whole;
    MSR-VTT keeps the splits of its release.
    """
    from cots.cli.files import writing
    from cots.config.source import SourceSection
    from cots.data.ingest.merge import merge

    located = [_kind_and_path(source) for source in sources]
    names = [path.resolve().name for _, path in located]
    if len(set(names)) < len(names):
        raise BadInput(f"data sets need different names: {', '.join(names)}")
    keys = [{"kind": kind, "path": path} | MERGED[kind] for kind, path in located]
    samples = [SourceSection.model_validate({"source": source}).source.read() for source in keys]
    data_sets = {name: (path, read) for name, (_, path), read in zip(names, located, samples, strict=True)}
    with writing(out):
        counts = merge(data_sets, out)
    typer.echo(table(["data set", "samples"], list(counts.items())))


def _kind_and_path(source: str) -> tuple[str, Path]:
    kind, _, path = source.partition(":")
    if kind not in MERGED or not path:
        raise BadInput(f"{source!r} is not KIND:PATH, where KIND is one of {', '.join(MERGED)}")
    return kind, Path(path).expanduser()


def _check_known(ids: Sequence[str], usage: Usage) -> None:
    """Refuse ids that are neither in the data nor in a version, so that a typing error withdraws nothing."""
    from cots.data.manifest import read_manifest
    from cots.data.withdrawn import read_withdrawn

    known = set(read_manifest(MANIFEST)["id"]) | set(read_withdrawn(WITHDRAWN))
    registered = set[str]().union(*(known_ids for both in usage.values() for known_ids in both))
    if unknown := [sample for sample in ids if sample not in known | registered]:
        raise BadInput(f"no sample {', '.join(unknown)}: it is neither in {MANIFEST} nor in a registered version")


def _usage(registry: "Registry", ids: Sequence[str]) -> Usage:
    """By version: which of the ids it was trained on, and which are in its index."""
    wanted = set(ids)
    artifacts = {info.version: registry.get_artifacts(info.version) for info in registry.list_versions()}
    usage = {
        version: (wanted & files.load_training_ids(), wanted & files.load_item_ids())
        for version, files in artifacts.items()
    }
    return {version: both for version, both in usage.items() if any(both)}


def _format_usage(ids: Sequence[str], usage: Usage) -> str:
    if not usage:
        return f"no registered version was trained on {', '.join(ids)} or has it in its index"
    rows = [[version, *(", ".join(sorted(known_ids)) or "-" for known_ids in both)] for version, both in usage.items()]
    return table(["version", "trained on", "in its index"], rows)
