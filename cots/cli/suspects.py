"""`cots suspects`: lists likely wrong captions, as detected during training, or shows them to be judged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cots.cli.tables import table
from cots.errors import BadInput
from cots.file_names import MANIFEST_PATH, PRETRAIN_PAIRS_PATH, SHARDS_PATH, SUSPECTS_PATH, VERDICTS_PATH

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS, MAX_TEXT_CHARS = 10, 70  # that are printed
LOOPBACK = "127.0.0.1"


def suspects(
    pairs: Annotated[Path, typer.Option(help="The pairs of a training run, with their scores.")] = PRETRAIN_PAIRS_PATH,
    manifest: Annotated[Path, typer.Option(help="The manifest of the run's data.")] = MANIFEST_PATH,
    out: Annotated[Path, typer.Option(help="The list to write; `validate` reads it.")] = SUSPECTS_PATH,
    review: Annotated[
        bool, typer.Option("--review", help="Write no list; show the pairs on a page, to be judged one by one.")
    ] = False,
    shards: Annotated[Path, typer.Option(help="Shards of the run's data, for --review.")] = SHARDS_PATH,
    index: Annotated[Path, typer.Option(help="Index that finds captions to compare with, for --review.")] = Path(
        "index"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 for any free one.")] = 8081,
) -> None:
    """List the pairs that the filter distrusts and nobody has judged; `validate` limits how many the data may hold.

    With --review they are shown with their images, least likely first. verdicts.csv keeps each verdict: `prepare`
    leaves out rejected captions, and accepted ones are not listed again. Where captions were made from labels, a last
    line says how often the filter dropped these and the others.
    """
    from cots.data.dvc_history import find_input
    from cots.data.manifest import read_manifest
    from cots.data.pairs import drop_rates, read_pairs
    from cots.data.quality.suspects import find_suspects, select_present, write_suspects
    from cots.data.verdicts import read_verdicts

    pair_table, samples = read_pairs(pairs), read_manifest(manifest)
    if (trained_on := find_input(pairs, manifest)) is None:
        raise BadInput(f"{pairs} is of an earlier {manifest}, which DVC's cache has lost: run `dvc repro pretrain`")
    trained = read_manifest(trained_on)
    suspect_pairs = find_suspects(pair_table, trained, read_verdicts(VERDICTS_PATH))
    suspect_pairs = select_present(suspect_pairs, samples)
    if review:
        _review(suspect_pairs, samples, shards, index, port)
        return
    write_suspects(out, suspect_pairs)
    rows = [
        [f"{row.score:.2f}", row.id, row.caption, str(row.text)[:MAX_TEXT_CHARS]]
        for row in suspect_pairs[:MAX_ROWS].itertuples()
    ]
    typer.echo(table(["score", "id", "caption", "text"], rows) if rows else "no suspects")
    counts = f"{len(suspect_pairs)} of {len(pair_table)} pairs"
    typer.echo(f"\n{counts}, written to {out}; look at them and judge them: cots suspects --review")
    for kind, drops in drop_rates(pair_table, trained).items():
        typer.echo(f"{kind} captions: dropped {drops.rate:.1%} of the times seen, mean score {drops.score:.2f}")


def _review(suspect_pairs: "pd.DataFrame", samples: "pd.DataFrame", shards: Path, index: Path, port: int) -> None:
    from cots.data.pipeline_lists import require_lists
    from cots.index.nearest_captions import NearestCaptions
    from cots.project_files import PIPELINE_FILE
    from cots.service.review.app import create_review_app
    from cots.service.review.judging import JudgingRound
    from cots.service.server import run_app

    if PIPELINE_FILE.is_file():
        require_lists(Path())
    if suspect_pairs.empty:
        typer.echo("no suspects that nobody has judged")
        return
    if not index.is_dir():
        typer.echo(f"no index {index}: pairs are shown without captions to compare with")
    nearest = NearestCaptions.load(index) if index.is_dir() else None
    judging = JudgingRound(suspect_pairs, samples, shards, VERDICTS_PATH, nearest)
    try:
        run_app(create_review_app(judging), host=LOOPBACK, port=port, purpose=f"shows {len(judging)} pairs")
    finally:
        counts = judging.progress()
        typer.echo(f"{counts['accepted']} accepted, {counts['rejected']} rejected, in {VERDICTS_PATH}: commit it")
