"""`cots drift`: tests whether queries and new samples differ from the deployed version's training data."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cots.cli.addresses import CHAMPION_URI
from cots.cli.files import writing
from cots.cli.tables import table
from cots.errors import BadInput
from cots.file_names import DRIFT_SUMMARY_PATH, MANIFEST_PATH, SHARDS_PATH
from cots.files import write_json

if TYPE_CHECKING:
    from cots.monitoring.drift import DriftCheck
    from cots.registry.versions import VersionInfo


def drift(
    queries: Annotated[Path | None, typer.Option(help="Folder that `cots serve --log-queries` wrote.")] = None,
    manifest: Annotated[Path, typer.Option(help="Manifest of the current data.")] = MANIFEST_PATH,
    shards: Annotated[Path, typer.Option(help="Shards of the current data.")] = SHARDS_PATH,
    reference: Annotated[
        Path | None,
        typer.Option(help="Manifest of the champion's training data; by default looked up in DVC's cache."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A version of cots-index; or a model folder, with --reference.")
    ] = CHAMPION_URI,
    out: Annotated[Path, typer.Option(help="Summary to write.")] = DRIFT_SUMMARY_PATH,
) -> None:
    """Compare queries and new samples with the champion's training data; exit code 0 even if they drifted."""
    from cots.config.params import Params
    from cots.data.manifest import read_manifest
    from cots.digests import file_digest
    from cots.monitoring.drift import DriftMonitor, summarize_checks
    from cots.monitoring.query_log import read_queries
    from cots.tracking.loading import load_encoders

    limits = Params.load().drift
    current = read_manifest(manifest)
    training_manifest = reference or _find_training_manifest(model, manifest)
    encoders = load_encoders(model)
    log = None
    if queries:
        log = read_queries(queries, encoders=encoders.digest, dim=encoders.dim, max_queries=limits.max_queries)
    monitor = DriftMonitor(
        encoders, training_manifest=read_manifest(training_manifest), manifest=current, shards=shards, limits=limits
    )
    checks = monitor(log)
    about = {"encoders": encoders.digest, "learnt from": file_digest(training_manifest), "data": file_digest(manifest)}
    result = summarize_checks(checks, **about, **({"queries left out": dict(log.num_skipped)} if log else {}))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, result)
    typer.echo(f"drifted: {str(result['drifted']).lower()}\n\n{_format_checks(checks)}")
    if log and log.num_skipped:
        typer.echo(
            "\nqueries left out: " + ", ".join(f"{number} {reason}" for reason, number in log.num_skipped.items())
        )
    typer.echo(f"\nall results: {out}")


def _find_training_manifest(model: str, manifest: Path) -> Path:
    """The manifest of the champion's training data: the current one, or an earlier one in DVC's cache."""
    from cots.data.dvc_history import past_versions
    from cots.digests import file_digest
    from cots.registry.registry import Registry

    if model != CHAMPION_URI:
        raise BadInput(f"the training data of {model} are not known: give their manifest with --reference")
    champion_digest = digest_of_training_data(Registry().list_versions())
    for path in (manifest, *past_versions(manifest)):
        if file_digest(path) == champion_digest:
            return path
    raise BadInput(
        f"the manifest of the champion's training data (sha256 {champion_digest[:12]}) is neither {manifest} nor in "
        "DVC's cache: give it with --reference, or run `dvc pull --run-cache` if a remote has it"
    )


def digest_of_training_data(versions: "Sequence[VersionInfo]") -> str:
    """Digest of the manifest of the champion's training data, from the first version with its encoders.

    Later versions with the same encoders may index new images that were not trained on.

    Args:
        versions: all versions of `cots-index`.

    Raises:
        BadInput: there is no champion.
    """
    from cots.registry.versions import find_champion

    champion = find_champion(versions)
    if champion is None:
        raise BadInput("no version is deployed: see `cots registry list`, then `cots registry promote`")
    same = [info for info in versions if info.tags.get("encoder.digest") == champion.tags.get("encoder.digest")]
    return min(same, key=lambda info: info.version).tags.get("manifest.digest", "")


def _format_checks(checks: "Sequence[DriftCheck]") -> str:
    rows = []
    for check in checks:
        name = f"{check.name} ({check.num_rows})"
        if check.skipped_reason:
            rows.append([name, "skipped", "-", check.skipped_reason, ""])
        rows += [
            [name, result.expectation, "yes" if result.success else "NO", result.observed, result.limit]
            for result in check.results
        ]
    return table(["what", "expected", "met", "observed", "limit"], rows)
