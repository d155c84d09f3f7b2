"""`cots drift`: whether queries and new samples are still what the deployed version learnt from."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cots.cli.addresses import CHAMPION
from cots.cli.files import writing
from cots.cli.tables import table
from cots.errors import BadInput
from cots.files import write_json

if TYPE_CHECKING:
    from cots.monitoring.drift import DriftCheck
    from cots.registry.versions import VersionInfo


def drift(
    queries: Annotated[Path | None, typer.Option(help="What `cots serve --log-queries` wrote.")] = None,
    manifest: Annotated[Path, typer.Option(help="Of the data as they are now.")] = Path("data/manifest.parquet"),
    shards: Annotated[Path, typer.Option(help="Their shards.")] = Path("data/shards"),
    reference: Annotated[
        Path | None, typer.Option(help="The manifest that the champion learnt from; else found in DVC's cache.")
    ] = None,
    model: Annotated[str, typer.Option(help="A version of cots-index, or a model folder with --reference.")] = CHAMPION,
    out: Annotated[Path, typer.Option(help="The summary to write.")] = Path("reports/drift/summary.json"),
) -> None:
    """Compare queries and new samples with what the champion learnt from; exit code 0 whatever is found."""
    from cots.config.params import Params
    from cots.data.manifest import read_manifest
    from cots.digests import file_digest
    from cots.monitoring.drift import DriftMonitor, summary
    from cots.monitoring.query_log import read_queries
    from cots.registry.loading import load_encoders

    limits = Params.load().drift
    current = read_manifest(manifest)
    learnt = reference or _learnt(model, manifest)
    encoders = load_encoders(model)
    log = None
    if queries:
        log = read_queries(queries, encoders=encoders.digest, dim=encoders.dim, newest=limits.max_queries)
    watch = DriftMonitor(encoders, learnt=read_manifest(learnt), manifest=current, shards=shards, limits=limits)
    checked = watch(log)
    about = {"encoders": encoders.digest, "learnt from": file_digest(learnt), "data": file_digest(manifest)}
    found = summary(checked, **about, **({"queries left out": dict(log.num_skipped)} if log else {}))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, found)
    typer.echo(f"drifted: {str(found['drifted']).lower()}\n\n{_told(checked)}")
    if log and log.num_skipped:
        typer.echo(
            "\nqueries left out: " + ", ".join(f"{number} {reason}" for reason, number in log.num_skipped.items())
        )
    typer.echo(f"\nall figures: {out}")


def _learnt(model: str, manifest: Path) -> Path:
    """The manifest that the champion's encoders were trained on: the current one, or an earlier one of this folder."""
    from cots.data.dvc_history import past_versions
    from cots.digests import file_digest
    from cots.registry.registry import Registry

    if model != CHAMPION:
        raise BadInput(f"which data {model} learnt from is not known: give their manifest with --reference")
    wanted = digest_of_training_data(Registry().versions())
    for path in (manifest, *past_versions(manifest)):
        if file_digest(path) == wanted:
            return path
    raise BadInput(
        f"the manifest that the champion learnt from (sha256 {wanted[:12]}) is neither {manifest} nor in DVC's cache: "
        "give it with --reference, or run `dvc pull --run-cache` where a remote has it"
    )


def digest_of_training_data(versions: "Sequence[VersionInfo]") -> str:
    """Of the first version with the champion's encoders: later ones may index new pictures without training.

    Args:
        versions: of `cots-index`, all of them.

    Raises:
        BadInput: there is no champion.
    """
    from cots.registry.versions import find_champion

    champion = find_champion(versions)
    if champion is None:
        raise BadInput("no version is deployed: run `dvc repro` and `cots registry publish` first")
    same = [one for one in versions if one.tags.get("encoder.digest") == champion.tags["encoder.digest"]]
    return min(same, key=lambda one: one.version).tags["manifest.digest"]


def _told(checked: "Sequence[DriftCheck]") -> str:
    rows = []
    for one in checked:
        name = f"{one.of} ({one.rows})"
        if one.skipped_reason:
            rows.append([name, "not judged", "-", one.skipped_reason, ""])
        rows += [
            [name, verdict.expectation, "yes" if verdict.success else "NO", verdict.observed, verdict.limit]
            for verdict in one.verdicts
        ]
    return table(["what", "expected", "held", "observed", "limit"], rows)
