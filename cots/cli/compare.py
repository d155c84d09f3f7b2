"""`cots compare`: tests whether one model retrieves better than another."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cots.cli.files import writing
from cots.cli.tables import table
from cots.directions import LABELS, TEXT_FIRST
from cots.errors import BadInput
from cots.files import write_json

TABLES = "a folder with tables of `reports/evaluation` or `cots evaluate --queries`, or one such subfolder per seed"
SCORES = ("challenger", "champion", "difference", "low", "high")


def compare(
    challenger: Annotated[Path, typer.Argument(metavar="A", help=f"First model: {TABLES}.")],
    champion: Annotated[Path, typer.Argument(metavar="B", help="Second model, on the same queries.")],
    out: Annotated[Path | None, typer.Option("--json", help="Write all results to this file.")] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
) -> None:
    """Compare two models on the same queries: A minus B, with 95 % intervals and two-sided p values."""
    from cots.evaluation.comparison import compare_query_tables, query_tables

    tables_a, tables_b = query_tables(challenger), query_tables(champion)
    shared = [target for target in tables_a if target in tables_b]
    if not shared:
        raise BadInput(
            f"nothing to compare: {challenger} has {', '.join(tables_a)} and {champion} has {', '.join(tables_b)}"
        )
    differences = {
        target: compare_query_tables(tables_a[target], tables_b[target], resamples=resamples, seed=seed)
        for target in shared
    }
    runs = {target: len(tables_a[target]) for target in shared}
    typer.echo("\n\n".join(_format_difference(target, scores, runs[target]) for target, scores in differences.items()))
    if out:
        with writing(out):
            write_json(out, {"a": str(challenger), "b": str(champion), "runs": runs, "difference": differences})


def _format_difference(target: str, scores: dict[str, Any], runs: int) -> str:
    by_direction = [
        (f"{LABELS[way]}, {score.replace('_', ' ')}", values)
        for way in TEXT_FIRST
        for score, values in scores.get(way, {}).items()
    ]
    rows = [[name, *_cells(values)] for name, values in [*by_direction, ("RSUM", scores["rsum"])]]
    resampled = "items" if runs == 1 else f"items and the {runs} runs"
    caption = f"{target}: A minus B, 95 % intervals and two-sided p of a paired bootstrap over {resampled}"
    return caption + "\n" + table(["", "A", "B", "A - B", "low", "high", "p"], rows)


def _cells(values: dict[str, float]) -> list[str]:
    return [*(f"{values[key]:.2f}" for key in SCORES), f"{values['p']:.4f}"]
