"""`cots summary`: results of the last run of the pipeline."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cots.cli.registry import versions_table
from cots.cli.tables import retrieval_table
from cots.errors import BadInput
from cots.file_names import METRICS_PATH, REPORT_PATH


def summary(
    metrics: Annotated[Path, typer.Option(help="Metrics of stage `evaluate`.")] = METRICS_PATH,
    page: Annotated[Path, typer.Option(help="Report of stage `evaluate`.")] = REPORT_PATH,
) -> None:
    """Print retrieval metrics, registered versions, the path of the report and what to try next."""
    from cots.registry.catalog import list_versions

    by_model = {name: values for name, values in _read(metrics).items() if "queries" in values}
    typer.echo("Retrieval, recall in per cent and median rank\n\n" + retrieval_table(by_model))
    typer.echo("\nRegistered versions of cots-index\n\n" + versions_table(list_versions()))
    typer.echo(f"\nReport: {page}" + ("" if page.is_file() else " (missing: run `dvc repro evaluate`)"))
    typer.echo(
        "\nTry next:\n"
        '  cots search "a red star above a blue ring"\n'
        "  cots registry history\n"
        "  cots init flickr8k --data PATH && dvc repro"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise BadInput(f"no metrics in {path} ({error.strerror}): run `dvc repro` first") from None
    except ValueError as error:
        raise BadInput(f"{path} is not JSON ({error}): run `dvc repro --force evaluate`") from None
    return values
