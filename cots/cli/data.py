"""`cots data`: several data sets into one, which versions learnt from a sample, and how to take it back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cots.cli.tables import table
from cots.errors import BadInput

if TYPE_CHECKING:
    from cots.registry.registry import Registry

data = typer.Typer(
    help="Samples: several data sets into one, which versions learnt from them, and taking them back.",
    no_args_is_help=True,
)
Ids = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Of samples, as the manifest and the results name them.")
]
Used = Mapping[int, tuple[set[str], set[str]]]  # by version: ids that it learnt from, ids that its index holds
MERGED: Mapping[str, Mapping[str, Any]] = {  # sources of files, and what they are asked beside their place
    "coco": {},
    "folder": {"seed": 0, "holdout": {"val": 0.0, "test": 0.0}},
    "karpathy": {},
    "msrvtt": {"protocol": "full"},
}
MANIFEST, WITHDRAWN = Path("data/manifest.parquet"), Path("withdrawn.csv")


@data.command()
def lineage(ids: Ids) -> None:
    """Show which versions learnt from a sample, and which hold it in their index."""
    from cots.registry.registry import Registry

    typer.echo(_told(ids, _used(Registry(), ids)))


@data.command()
def withdraw(
    ids: Ids,
    reason: Annotated[str, typer.Option(help="Why; it is kept in withdrawn.csv and in the registry.")],
) -> None:
    """Take samples out of the data and of the deployed index, and name the versions that learnt from them.

    The source is not changed: withdrawn.csv keeps them out. Versions that hold them can be deployed no more.
    """
    from cots.cli.registry import refresh
    from cots.data.withdrawn import add_withdrawn
    from cots.registry.registry import Registry

    registry = Registry()
    used = _used(registry, ids)
    _check_known(ids, used)
    add_withdrawn(WITHDRAWN, dict.fromkeys(ids, reason))
    registry.withdraw(dict.fromkeys(ids, reason))
    typer.echo(_told(ids, used))
    if registry.versions():
        refresh()
    typer.echo(f"\n{WITHDRAWN} names {', '.join(ids)}: commit it; the next `dvc repro` trains without them")


@data.command()
@data.command(name="gather", hidden=True)  # its name until 0.1
def merge(
    out: Annotated[
        Path, typer.Argument(help="The new folder, for `cots init folder --data` or `cots init clips --data`.")
    ],
    sources: Annotated[list[str], typer.Argument(metavar="KIND:PATH...", help=f"Kinds: {', '.join(MERGED)}.")],
) -> None:
    """Make one folder of several data sets, of pictures and of clips, each in the splits that it names.

    Files are linked, or copied from another disk. A folder that names no splits is train as a whole; of MSR-VTT the
    release's own splits are taken.
    """
    from cots.cli.files import writing
    from cots.data.ingest.merge import merge
    from cots.data.sources import SOURCES

    asked = [_kind_and_path(source) for source in sources]
    names = [path.resolve().name for _, path in asked]
    if len(set(names)) < len(names):
        raise BadInput(f"data sets need different names: {', '.join(names)}")
    read = [(path, SOURCES[kind](path=path, **MERGED[kind])) for kind, path in asked]
    opened = dict(zip(names, read, strict=True))
    with writing(out):
        counts = merge(opened, out)
    typer.echo(table(["data set", "samples"], list(counts.items())))


def _kind_and_path(source: str) -> tuple[str, Path]:
    kind, _, path = source.partition(":")
    if kind not in MERGED or not path:
        raise BadInput(f"{source!r} is not KIND:PATH with a kind of {', '.join(MERGED)}")
    return kind, Path(path).expanduser()


def _check_known(ids: Sequence[str], used: Used) -> None:
    """Refuse ids that neither the present data nor a version knows: a slip of the keyboard withdraws nothing."""
    from cots.data.manifest import read_manifest
    from cots.data.withdrawn import read_withdrawn

    known = set(read_manifest(MANIFEST)["id"]) | set(read_withdrawn(WITHDRAWN))
    registered = set[str]().union(*(some for both in used.values() for some in both))
    if strangers := [one for one in ids if one not in known | registered]:
        raise BadInput(f"no sample {', '.join(strangers)}: neither {MANIFEST} nor a registered version knows it")


def _used(registry: "Registry", ids: Sequence[str]) -> Used:
    """By version: which of the ids it learnt from, and which its index holds."""
    asked = set(ids)
    kept = {one.version: registry.artifacts(one.version) for one in registry.versions()}
    found = {
        version: (asked & files.load_training_ids(), asked & files.load_item_ids()) for version, files in kept.items()
    }
    return {version: both for version, both in found.items() if any(both)}


def _told(ids: Sequence[str], used: Used) -> str:
    if not used:
        return f"no registered version learnt from {', '.join(ids)} or holds it"
    rows = [[version, *(", ".join(sorted(some)) or "-" for some in both)] for version, both in used.items()]
    return table(["version", "learnt from", "holds"], rows)
