"""`cots suspects`: lists likely wrong captions, as detected during training."""

from pathlib import Path
from typing import Annotated

import typer

from cots.cli.tables import table
from cots.file_names import MANIFEST_PATH, PRETRAIN_PAIRS_PATH, SUSPECTS_PATH

MAX_ROWS, MAX_TEXT_CHARS = 10, 70  # that are printed


def suspects(
    pairs: Annotated[Path, typer.Option(help="The pairs of a training run, with their scores.")] = PRETRAIN_PAIRS_PATH,
    manifest: Annotated[Path, typer.Option(help="The manifest of the run's data.")] = MANIFEST_PATH,
    out: Annotated[Path, typer.Option(help="The list to write; `validate` reads it.")] = SUSPECTS_PATH,
) -> None:
    """List the pairs that the filter distrusts; `validate` limits how many of them the data may hold."""
    from cots.data.manifest import read_manifest
    from cots.data.pairs import read_pairs
    from cots.data.quality.suspects import find_suspects, write_suspects

    pair_table = read_pairs(pairs)
    suspect_pairs = find_suspects(pair_table, read_manifest(manifest))
    write_suspects(out, suspect_pairs)
    rows = [
        [f"{row.score:.2f}", row.id, row.caption, str(row.text)[:MAX_TEXT_CHARS]]
        for row in suspect_pairs[:MAX_ROWS].itertuples()
    ]
    typer.echo(table(["score", "id", "caption", "text"], rows) if rows else "no suspects")
    counts = f"{len(suspect_pairs)} of {len(pair_table)} pairs"
    typer.echo(f"\n{counts}, written to {out}; delete those that are right after all")
