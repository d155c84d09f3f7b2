"""`cots suspects`: lists likely wrong captions, as detected during training."""

from pathlib import Path
from typing import Annotated

import typer

from cots.cli.tables import table
from cots.errors import BadInput

MAX_ROWS, TEXT_CHARS = 10, 70


def suspects(
    pairs: Annotated[Path, typer.Option(help="The scores of each pair from a training run.")] = Path(
        "reports/pretrain/pairs.parquet"
    ),
    manifest: Annotated[Path, typer.Option(help="The manifest of the run's data.")] = Path("data/manifest.parquet"),
    out: Annotated[Path, typer.Option(help="The list to write; `validate` reads it.")] = Path("suspects.csv"),
) -> None:
    """List the pairs that the filter distrusts; `validate` limits how many of them the data may hold."""
    import pandas as pd

    from cots.data.manifest import read_manifest
    from cots.data.quality.suspects import suspects as find_suspects
    from cots.data.quality.suspects import write_suspects

    if not pairs.is_file():
        raise BadInput(f"no file {pairs}: run `dvc repro pretrain`")
    scored = pd.read_parquet(pairs)
    suspect = find_suspects(scored, read_manifest(manifest))
    write_suspects(out, suspect)
    rows = [
        [f"{row.score:.2f}", row.id, row.caption, str(row.text)[:TEXT_CHARS]] for row in suspect[:MAX_ROWS].itertuples()
    ]
    typer.echo(table(["score", "id", "caption", "text"], rows) if rows else "no pair is suspect")
    typer.echo(f"\n{len(suspect)} of {len(scored)} pairs, written to {out}; delete those that are right after all")
