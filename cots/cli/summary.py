"""`cots summary`: results of the last run of the pipeline."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from cots.cli.addresses import CHAMPION_URI
from cots.cli.registry import versions_table
from cots.cli.tables import retrieval_table
from cots.errors import BadInput, CotsError
from cots.file_names import METRICS_PATH, REPORT_PATH
from cots.terminal import escape_controls


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
    searches = "".join(f"  cots search {escape_controls(shlex.quote(query))}\n" for query in _answered_queries()[:2])
    typer.echo(f"\nTry next:\n{searches}  cots serve\n  cots registry history\n  cots init FOLDER && dvc repro")


def _answered_queries() -> list[str]:
    """Captions that the deployed index answers with their own item; none without a deployed index."""
    from cots.registry.packaged import open_search
    from cots.search_engine.samples import sample_queries

    try:
        with open_search(CHAMPION_URI, texts_only=True) as deployed:
            return sample_queries(deployed.engine, batch_size=deployed.batch_size)
    except CotsError:
        return []


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise BadInput(f"no metrics in {path} ({error.strerror}): run `dvc repro` first") from None
    except ValueError as error:
        raise BadInput(f"{path} is not JSON ({error}): run `dvc repro --force evaluate`") from None
    return values
