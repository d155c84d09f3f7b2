"""`cots suspects`: the captions that training found not to fit their pictures."""

from pathlib import Path
from typing import Annotated

import typer

from cots.cli.tables import table
from cots.errors import BadInput

SHOWN, TEXT_CHARS = 10, 70


def suspects(
    pairs: Annotated[Path, typer.Option(help="What a run learnt of each pair.")] = Path(
        "reports/pretrain/pairs.parquet"
    ),
    manifest: Annotated[Path, typer.Option(help="The manifest of its data.")] = Path("data/manifest.parquet"),
    out: Annotated[Path, typer.Option(help="The list that `validate` reads.")] = Path("suspects.csv"),
) -> None:
    """List the pairs that the filter distrusts; `validate` holds the data against the list."""
    import pandas as pd

    from cots.data.manifest import read_manifest
    from cots.data.quality.suspects import suspects as found_in
    from cots.data.quality.suspects import write_suspects

    if not pairs.is_file():
        raise BadInput(f"no pairs {pairs}: run `dvc repro pretrain`")
    seen = pd.read_parquet(pairs)
    found = found_in(seen, read_manifest(manifest))
    write_suspects(out, found)
    rows = [[f"{row.score:.2f}", row.id, row.caption, str(row.text)[:TEXT_CHARS]] for row in found[:SHOWN].itertuples()]
    typer.echo(table(["score", "id", "caption", "text"], rows) if rows else "no pair is suspect")
    typer.echo(f"\n{len(found)} of {len(seen)} pairs, written to {out}; strike out those that are right after all")
