"""`cots registry`: which versions there are, where they came from, and which one is deployed."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cots.cli.tables import table

if TYPE_CHECKING:
    from cots.registry.registry import PublishResult
    from cots.registry.versions import VersionInfo

registry = typer.Typer(help="Versions of the search index: publish, compare, promote, rollback.", no_args_is_help=True)
Reason = Annotated[str, typer.Option(help="Why; it is kept in the history.")]


@registry.command()
def publish() -> None:
    """Register what `dvc repro` packaged, once for each content; deploy it if the gate lets it pass."""
    from cots.config.params import Params
    from cots.registry.publishing import publish as publish_package

    typer.echo(_told(publish_package(Params.load())))


@registry.command()
def refresh() -> None:
    """Index the present pictures with the deployed encoders, without training; deploy that index.

    Brings data/ up to date by `dvc repro --single-item` first, so that pictures that came or went are seen.
    """
    from cots.cli.pipeline import reproduce
    from cots.config.params import Params
    from cots.refresh import refresh as refresh_index

    for stage in ("prepare", "validate"):
        reproduce(stage)
    done = refresh_index(Params.load())
    typer.echo(_told(done) if done else "nothing new: the champion's index holds the present pictures")


@registry.command(name="list")
def list_versions() -> None:
    """List the versions, the newest first."""
    from cots.registry.catalog import versions

    typer.echo(versions_table(versions()))


@registry.command()
def history() -> None:
    """List every move of the champion, oldest first, with who and why."""
    from cots.registry.catalog import history as read_history

    moves = read_history()
    rows = [
        [f"{one.when:%Y-%m-%d %H:%M:%S}", one.what, one.before or "-", one.after, one.who, one.why] for one in moves
    ]
    typer.echo(table(["when (UTC)", "what", "from", "to", "who", "why"], rows) if rows else "nothing was deployed yet")


@registry.command()
def promote(
    version: Annotated[int, typer.Option(help="Of cots-index.")],
    reason: Reason,
) -> None:
    """Deploy a version, whatever the gate said of it."""
    from cots.registry.client import INDEX
    from cots.registry.registry import Registry

    moved = Registry().promote(version, why=reason)
    typer.echo(f"{INDEX} version {version} is the champion" + ("" if moved else " already: nothing changed"))


@registry.command()
def rollback(reason: Reason) -> None:
    """Go back to the version that was deployed before."""
    from cots.registry.client import INDEX
    from cots.registry.registry import Registry

    typer.echo(f"{INDEX} version {Registry().rollback(why=reason)} is the champion")


@registry.command()
def diff(
    before: Annotated[int, typer.Argument(metavar="A", help="A version of cots-index.")],
    after: Annotated[int, typer.Argument(metavar="B", help="Another.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what differs between two versions: parameters, data, metrics."""
    from cots.registry.registry import Registry

    found = Registry().diff_versions(before, after)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for name, values in found.items():
        rows = [[key, *("-" if one is None else one for one in pair)] for key, pair in values.items()]
        typer.echo(f"{name}\n" + (table(["", str(before), str(after)], rows) if rows else "  the same") + "\n")


@registry.command()
def lineage(
    version: Annotated[int | None, typer.Option(help="Of cots-index; the champion where none is given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a list.")] = False,
) -> None:
    """Show where a version came from: encoders, runs, parameters, code commit, data manifest, the gate's decision."""
    from cots.registry.registry import Registry

    known = Registry()
    found = (known.champion() if version is None else known.get_version(version)).lineage()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [row for name, value in found.items() for row in _rows(name, value)]
    typer.echo(table(["what", "value"], rows))


def versions_table(versions: "list[VersionInfo]") -> str:
    """One line a version."""
    if not versions:
        return "no version is registered: run `dvc repro` and `cots registry publish`"
    rows = [
        [
            one.version,
            one.encoders,
            ",".join(one.aliases) or "-",
            one.created.strftime("%Y-%m-%d %H:%M"),
            one.tags.get("metrics.rsum", "-"),
            one.tags.get("git.commit", "-")[:10],
            one.tags.get("gate.reasons", "-"),
        ]
        for one in versions
    ]
    return table(["version", "encoders", "alias", "registered (UTC)", "rsum", "commit", "gate"], rows)


def _told(done: "PublishResult") -> str:
    what = "registered" if done.new else "was registered already: the content is the same"
    role = "the champion" if done.champion else "not the champion"
    return f"cots-index version {done.version} {what}; it is {role} ({done.reasons})"


def _rows(name: str, value: Any) -> list[list[str]]:  # noqa: ANN401  JSON
    if isinstance(value, Mapping):
        return [row for key, inner in value.items() for row in _rows(f"{name}.{key}", inner)]
    return [[name, ", ".join(value) if isinstance(value, list) else str(value)]]
