"""`cots registry`: which versions there are, and which one is deployed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cots.cli.tables import table

if TYPE_CHECKING:
    from cots.serving.registry import Listed

registry = typer.Typer(help="Versions of the search index: publish, list, promote, rollback.", no_args_is_help=True)


@registry.command()
def publish(
    package: Annotated[Path, typer.Option(help="What stage `package` wrote.")] = Path("package"),
    runs: Annotated[Path, typer.Option(help="Files that name the MLflow runs.")] = Path("runs"),
    lock: Annotated[Path, typer.Option(help="DVC's record of the pipeline.")] = Path("dvc.lock"),
) -> None:
    """Register the package, once for each content; deploy it if it is not worse than what is deployed."""
    from cots.serving.registry import INDEX, Registry

    done = Registry().publish(package, runs, lock)
    what = "registered" if done.new else "was registered already: the content is the same"
    role = "the champion" if done.champion else "not the champion"
    typer.echo(f"{INDEX} version {done.version} {what}; it is {role} ({done.reasons})")


@registry.command(name="list")
def list_versions(
    history: Annotated[bool, typer.Option(help="Also every move of the champion, with who and why.")] = False,
) -> None:
    """List the versions, the newest first."""
    from cots.serving.registry import Registry

    registered = Registry()
    typer.echo(versions_table(registered.versions()))
    if history:
        head = ["when", "what", "from", "to", "who", "why"]
        rows = [[move[name] if move[name] is not None else "-" for name in head] for move in registered.history()]
        typer.echo("\n" + table(head, rows))


@registry.command()
def promote(
    version: Annotated[int, typer.Option(help="Of cots-index.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept in the history.")],
) -> None:
    """Deploy a version, whatever the gate said of it."""
    from cots.serving.registry import INDEX, Registry

    moved = Registry().promote(version, why=reason)
    typer.echo(f"{INDEX} version {version} is the champion" + ("" if moved else " already: nothing changed"))


@registry.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; it is kept in the history.")],
) -> None:
    """Go back to the version that was deployed before."""
    from cots.serving.registry import INDEX, Registry

    typer.echo(f"{INDEX} version {Registry().rollback(why=reason)} is the champion")


def versions_table(versions: "list[Listed]") -> str:
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
