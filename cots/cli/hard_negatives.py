"""`cots hard-negatives`: finds the training samples that a model confuses, for the next training."""

from pathlib import Path
from typing import Annotated

import typer

from cots.file_names import DATA


def hard_negatives(
    index: Annotated[Path, typer.Option(help="Index of the model, whose splits include train.")] = Path("index"),
    out: Annotated[Path | None, typer.Option(help="Table to write; by default in data/, named by its content.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Hard negatives of each sample, at most.")] = 10,
    max_fit: Annotated[
        float,
        typer.Option(
            min=0, help="A sample that scores above this fraction of the caption's own one is taken to fit it as well."
        ),
    ] = 0.95,
) -> None:
    """Write for each training sample those that its captions find wrongly, for `pretrain.hard_negatives`."""
    from cots.data.hard_negatives import SCHEMA
    from cots.data.manifest import write_table
    from cots.digests import text_digest
    from cots.index.hard_negatives import mine_hard_negatives

    nearest = mine_hard_negatives(index, count=count, max_fit=max_fit)
    columns = zip(nearest["id"], nearest["nearest"], strict=True)
    rows: list[dict[str, object]] = [{"id": id_, "nearest": others} for id_, others in columns]
    name = text_digest(str(rows))[:12]  # another table is another parameter, which DVC sees
    path = out or DATA / f"hard_negatives-{name}.parquet"
    write_table(path, rows, SCHEMA)
    typer.echo(f"{len(rows)} samples with {nearest['nearest'].map(len).mean():.1f} hard negatives on average: {path}")
    typer.echo(f"train with them: pretrain.hard_negatives.table: {path}")
