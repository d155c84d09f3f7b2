"""`cots compare`: whether one model retrieves better than another, or only luckier."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cots.cli.files import writing
from cots.cli.tables import table
from cots.directions import LABELS, TEXT_FIRST
from cots.errors import BadInput
from cots.files import write_json

TABLES = "a folder of `reports/evaluation` or of `cots evaluate --queries`, or of several runs, one a seed"
SCORES = ("challenger", "champion", "difference", "low", "high")


def compare(
    challenger: Annotated[Path, typer.Argument(metavar="A", help=f"One model: {TABLES}.")],
    champion: Annotated[Path, typer.Argument(metavar="B", help="The other, on the same queries.")],
    out: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Draws of the paired bootstrap.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Compare two models on the same queries: A less B with 95 % intervals and two-sided p."""
    from cots.evaluation.comparison import compare_query_tables, query_tables

    ours, theirs = query_tables(challenger), query_tables(champion)
    shared = [target for target in ours if target in theirs]
    if not shared:
        raise BadInput(f"{challenger} tells of {', '.join(ours)} and {champion} of {', '.join(theirs)}")
    differences = {
        target: compare_query_tables(ours[target], theirs[target], resamples=resamples, seed=seed) for target in shared
    }
    runs = {target: len(ours[target]) for target in shared}
    typer.echo("\n\n".join(_told(target, figures, runs[target]) for target, figures in differences.items()))
    if out:
        with writing(out):
            write_json(out, {"a": str(challenger), "b": str(champion), "runs": runs, "difference": differences})


def _told(target: str, figures: dict[str, Any], runs: int) -> str:
    by_direction = [
        (f"{LABELS[way]}, {score.replace('_', ' ')}", values)
        for way in TEXT_FIRST
        for score, values in figures.get(way, {}).items()
    ]
    rows = [[name, *_cells(values)] for name, values in [*by_direction, ("RSUM", figures["rsum"])]]
    drawn = "items" if runs == 1 else f"items and of the {runs} runs"
    caption = f"{target}: A less B, 95 % intervals and two-sided p of a paired bootstrap of {drawn}"
    return caption + "\n" + table(["", "A", "B", "A - B", "low", "high", "p"], rows)


def _cells(values: dict[str, float]) -> list[str]:
    return [*(f"{values[key]:.2f}" for key in SCORES), f"{values['p']:.4f}"]
