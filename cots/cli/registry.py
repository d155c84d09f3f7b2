"""`cots registry`: publishes, compares and deploys versions, and shows their lineage."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cots.cli.tables import table
from cots.terminal import escape_controls

if TYPE_CHECKING:
    from cots.registry.registry import PublishResult
    from cots.registry.versions import VersionInfo

registry = typer.Typer(help="Versions of the search index: publish, compare, promote, rollback.", no_args_is_help=True)
OTHER_QUERIES = "\n* on other test queries than the champion's: not comparable"
Reason = Annotated[str, typer.Option(help="Reason, stored in the history.")]


@registry.command()
def publish() -> None:
    """Register the package that `dvc repro` made, unless it is registered already; deploy it if it passes the gate."""
    from cots.config.params import Params
    from cots.exclusive_run import exclusive_run
    from cots.registry.publishing import publish as publish_package
    from cots.tracking.git import git_state

    with exclusive_run("cots registry publish"):
        result = publish_package(Params.load())
    if result.new and not git_state():
        typer.echo("nothing is committed to git, so the version names no commit that it was made from", err=True)
    typer.echo(format_result(result))  # the last line is the outcome of a flow


@registry.command()
def refresh(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, in one line, instead of a sentence.")] = False,
) -> None:
    """Index the current images with the deployed encoders, without training, and deploy that index.

    First runs `prepare` (`dvc repro --single-item`), so that the index has added images and no removed ones, and
    `validate`, if the encoders have learnt from these data.
    """
    from cots.cli.pipeline import prepare, reproduce
    from cots.config.params import Params
    from cots.exclusive_run import exclusive_run
    from cots.refresh import refresh as refresh_index
    from cots.registry.registry import Registry

    with exclusive_run("cots registry refresh"):
        prepare()
        if Registry().needs_validation():
            reproduce("validate")
        result = refresh_index(Params.load())
    line = format_result(result) if result else "nothing new: the champion's index holds the current images"
    if as_json:
        version = result.version if result else Registry().get_champion().version
        line = json.dumps({"version": version, "champion": not result or result.champion, "report": line})
    typer.echo(line)


@registry.command(name="list")
def list_versions() -> None:
    """List the versions, newest first."""
    from cots.registry.catalog import list_versions

    typer.echo(versions_table(list_versions()))


@registry.command()
def history() -> None:
    """List every promotion and rollback, oldest first, with its author and reason."""
    from cots.registry.catalog import list_promotions

    promotions = list_promotions()
    rows = [[f"{p.when:%Y-%m-%d %H:%M:%S}", p.what, p.before or "-", p.after, p.who, p.why] for p in promotions]
    typer.echo(
        table(["when (UTC)", "what", "from", "to", "who", "why"], rows) if rows else "nothing has been deployed yet"
    )


@registry.command()
def promote(
    version: Annotated[int, typer.Option(help="A version of cots-index.")],
    reason: Reason,
) -> None:
    """Deploy a version, whatever the gate decided about it."""
    from cots.registry.client import INDEX
    from cots.registry.registry import Registry

    promoted = Registry().promote(version, why=reason)
    typer.echo(f"{INDEX} version {version} is the champion" + ("" if promoted else " already: nothing changed"))


@registry.command()
def rollback(reason: Reason) -> None:
    """Deploy the version that was deployed before."""
    from cots.registry.client import INDEX
    from cots.registry.registry import Registry

    typer.echo(f"{INDEX} version {Registry().rollback(why=reason)} is the champion")


@registry.command()
def diff(
    before: Annotated[int, typer.Argument(metavar="A", help="A version of cots-index.")],
    after: Annotated[int, typer.Argument(metavar="B", help="Another version.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what differs between two versions: parameters, data, metrics."""
    from cots.registry.registry import Registry

    differences = Registry().diff_versions(before, after)
    if as_json:
        typer.echo(json.dumps(differences, indent=2))
        return
    for name, values in differences.items():
        rows = [[key, *("-" if value is None else value for value in pair)] for key, pair in values.items()]
        typer.echo(f"{name}\n" + (table(["", str(before), str(after)], rows) if rows else "  the same") + "\n")
    if "metrics" not in differences:
        typer.echo("metrics\n  not comparable: each version was measured on test queries of its own")


@registry.command()
def lineage(
    version: Annotated[int | None, typer.Option(help="A version of cots-index; by default the champion.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a list.")] = False,
) -> None:
    """Show what a version was made from (encoders, runs, parameters, commit, data) and what the gate decided."""
    from cots.registry.registry import Registry

    client = Registry()
    facts = (client.get_champion() if version is None else client.get_version(version)).lineage()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    rows = [row for name, value in facts.items() for row in _rows(name, value)]
    typer.echo(table(["what", "value"], rows))


def versions_table(versions: "list[VersionInfo]") -> str:
    """A table with one line for each version."""
    if not versions:
        return "no version is registered: run `cots index FOLDER`, or `dvc repro` and `cots registry publish`"
    from cots.registry.versions import find_champion

    champion = find_champion(versions)
    rows = [
        [
            info.version,
            info.encoders or "-",
            ",".join(info.aliases) or "-",
            info.created.strftime("%Y-%m-%d %H:%M"),
            _format_rsum(info.tags, champion.tags if champion else info.tags),
            info.tags.get("git.commit", "-")[:10],
            info.tags.get("gate.reasons", "-"),
        ]
        for info in versions
    ]
    text = table(["version", "encoders", "alias", "registered (UTC)", "rsum", "commit", "gate"], rows)
    return text + (OTHER_QUERIES if any(str(row[4]).endswith("*") for row in rows) else "")


def _format_rsum(tags: Mapping[str, str], champion: Mapping[str, str]) -> str:
    """RSUM of a version, marked if the champion's is of other test queries."""
    from cots.registry.versions import are_comparable

    if "metrics.rsum" not in tags:
        return "-"
    return f"{float(tags['metrics.rsum']):.1f}" + ("" if are_comparable(tags, champion) or tags is champion else "*")


def format_result(result: "PublishResult") -> str:
    """What became of a published package, in one line."""
    what = "registered" if result.new else "was registered already: the content is the same"
    role, way = "the champion", ""
    if not result.champion:
        role, way = "not the champion", f"; to deploy it: `cots registry promote --version {result.version}`"
    reasons = escape_controls(result.overruled or result.reasons)  # which may name samples
    return f"cots-index version {result.version} {what}; it is {role} ({reasons}){way}"


def _rows(name: str, value: Any) -> list[list[str]]:  # noqa: ANN401  JSON
    if isinstance(value, Mapping):
        return [row for key, inner in value.items() for row in _rows(f"{name}.{key}", inner)]
    return [[name, ", ".join(value) if isinstance(value, list) else str(value)]]
