"""Parts of the report from the files that the stages left behind; a part whose files are absent is left out."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cots.curves import FILTER_THRESHOLD, KEEP_RATE, SIMILARITY_MEAN, TOTAL_LOSS, current_column, loss_columns
from cots.data.pairs import read_pairs
from cots.data.stored_samples import decode_frames, read_stored_by_id
from cots.directions import LABELS
from cots.errors import BadInput
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.retrieval import RetrievalResult
from cots.file_names import CODEBOOK_USAGE, CURVES
from cots.report.gallery import (
    ids_shown,
    plan_items_to_texts,
    plan_texts_to_items,
    queries_by_item,
    queries_by_text,
)
from cots.report.noise import filter_figures, known_pairs
from cots.report.page import Dvae, Gallery, Noise, Suspect, Table
from cots.report.pictures import Picture
from cots.report.plots import Chart, Curve, curves

SIDE = {"image": 112, "video": 68}  # pixels along the longer side of a shown picture or frame
SUSPECTS = 12
REJECTS = 8  # examples of refused samples
NO_THRESHOLD = -1.0  # what the curves say while the filter warms up

Fetch = Callable[[Iterable[str]], dict[str, Picture]]


def pictures_of(shards: Path, manifest: pd.DataFrame) -> Fetch:
    """A function from ids to small pictures, each described by its first caption."""
    media = dict(zip(manifest["id"], manifest["media"], strict=True))

    def fetch(ids: Iterable[str]) -> dict[str, Picture]:
        stored = read_stored_by_id(shards, manifest, ids)
        return {
            name: Picture.of_frames(decode_frames(sample), sample.captions[0], side=SIDE[media[name]])
            for name, sample in stored.items()
        }

    return fetch


def galleries(
    embedded: EmbeddedSplit,
    measured: RetrievalResult,
    fetch: Fetch,
    *,
    before: EmbeddedSplit | None,
    count: int,
    seed: int,
) -> list[Gallery]:
    """Two galleries of one target, texts as queries first.

    Args:
        embedded: the split; `before`, the same before fine-tuning; measured: retrieval on it.
        fetch: pictures by id.
        count: queries a gallery; seed: of their choice.
    """
    (name_of_texts, to_texts), (name_of_items, to_items) = measured.directions.items()
    by_item = plan_items_to_texts(embedded, to_texts, count=count, seed=seed)
    by_text = plan_texts_to_items(embedded, to_items, count=count, seed=seed, before=before)
    pictures = fetch(ids_shown(embedded, by_item, by_text))
    return [
        Gallery(LABELS[name_of_items].capitalize(), to_items.candidates, queries_by_text(embedded, by_text, pictures)),
        Gallery(LABELS[name_of_texts].capitalize(), to_texts.candidates, queries_by_item(embedded, by_item, pictures)),
    ]


def training_charts(run: str, folder: Path) -> list[Chart]:
    """Losses, shares and thresholds over the steps of one run, from its `curves.csv`."""
    table = _curves(folder)
    steps = table["step"].to_numpy(dtype=np.float64)
    losses = {name: table[name].to_numpy() for name in loss_columns(map(str, table))}
    explanation = f"Nats; {TOTAL_LOSS} is the weighted sum. A level of weight 0 is not drawn."
    used = f"{table['utilisation'].iloc[-1]:.0%} of what the machine's matrix products reach"
    waited = f"{table['data_wait'].iloc[-1]:.1%} of the time was spent waiting"
    return [
        curves("Losses", run, steps, losses, caption=explanation),
        *(_filtering(run, steps, table) if KEEP_RATE in table else []),
        curves(
            "Speed, pairs/s",
            run,
            steps,
            {"pairs/s": table["pairs_per_second"].to_numpy()},
            caption=f"Pairs a second since the start. The operations of the steps are {used}; {waited} for data.",
        ),
    ]


def _filtering(run: str, steps: NDArray[np.float64], table: pd.DataFrame) -> list[Chart]:
    """What the filter saw and did; a baseline has none."""
    similarity = {
        SIMILARITY_MEAN: table[SIMILARITY_MEAN].to_numpy(),
        FILTER_THRESHOLD: _unless(table[FILTER_THRESHOLD], NO_THRESHOLD),
    }
    return [
        curves(
            "Pair similarity",
            run,
            steps,
            similarity,
            level=FILTER_THRESHOLD,
            caption="Running mean over the training pairs, and the filter's threshold once it has warmed up.",
        ),
        curves(
            "Pairs kept, %",
            run,
            steps,
            {KEEP_RATE: 100 * table[KEEP_RATE].to_numpy()},
            caption="Share of each batch that the filter keeps.",
        ),
    ]


def dvae(folder: Path) -> Dvae:
    """Reconstructions, use of the codebook and training of the dVAE."""
    table, usage = _curves(folder), json.loads((folder / CODEBOOK_USAGE).read_text(encoding="utf8"))
    steps = table["step"].to_numpy()
    words = {
        "perplexity": "Perplexity of the codes",
        "codes": "Codes",
        "used": "Codes in use",
        "l1": "Mean absolute error of a pixel, in [0, 1]",
    }
    return Dvae(
        Picture.of_png(folder / "reconstructions.png", "Crops of training pictures above their reconstructions"),
        Table("Use of the codebook on unseen crops.", ("Figure", "Value"), [(words[key], usage[key]) for key in words]),
        [
            curves(
                "Reconstruction",
                "dVAE",
                steps,
                {"reconstruction": table["reconstruction"].to_numpy()},
                caption="Mean squared error of the pixels; of an imported dVAE, by batch of crops.",
            ),
            curves(
                "Codes in a batch",
                "dVAE",
                steps,
                {"perplexity": table["perplexity"].to_numpy()},
                caption=f"Perplexity of the {usage['codes']} codes in each batch.",
            ),
        ],
    )


def noise(pairs: Path, manifest: pd.DataFrame, fetch: Fetch) -> Noise:
    """The filter's figures where wrong captions are known, and its suspects in any case."""
    table = known_pairs(read_pairs(pairs), manifest)
    worst = table.head(SUSPECTS)
    pictures = fetch(worst["id"])
    suspects = [
        Suspect(pictures[row["id"]], row["text"], row["score"], row["seen"], row["dropped"], row["wrong"])
        for row in worst.to_dict("records")
    ]
    return Noise(filter_figures(table) if table["wrong"].any() else None, suspects)


def overview(manifest: pd.DataFrame) -> Table:
    """Samples, captions, frames and bytes by split and media."""
    rows = [
        (
            f"{split}, {'pictures' if media == 'image' else 'clips'}",
            len(group),
            int(group["captions"].map(len).sum()),
            int(group["wrong"].map(sum).sum()),
            int(group["frames"].sum()),
            round(float(group["bytes"].sum()) / 1e6, 1),
        )
        for (split, media), group in manifest.groupby(["split", "media"], sort=False)
    ]
    return Table("What the shards hold.", ("Split", "Samples", "Captions", "Known wrong", "Frames", "MB"), rows)


def rejects(rejected: pd.DataFrame) -> list[Table]:
    """Refused samples by reason, and a few of them."""
    if rejected.empty:
        return [Table("Rejected samples.", ("Reason", "Samples"), [("none", 0)])]
    counts = rejected["reason"].value_counts()
    by_reason = [(str(reason), int(number)) for reason, number in counts.items()]
    examples = rejected.groupby("reason", sort=False).head(2).head(REJECTS)
    rows = [(row["id"], row["reason"], row["detail"]) for row in examples.to_dict("records")]
    return [
        Table("Rejected samples by reason.", ("Reason", "Samples"), by_reason),
        Table("Some of them.", ("Sample", "Reason", "Detail"), rows),
    ]


def validation(summary: Path) -> list[Table]:
    """What the data was held against, and how it came out; nothing where there was no validation."""
    if not summary.is_file():
        return []
    outcome = json.loads(summary.read_text(encoding="utf8"))
    rows = [
        (check["expectation"], check["limit"], "met" if check["success"] else "NOT met", _words(check["observed"]))
        for check in outcome["checks"]
    ]
    verdict = (
        "All expectations on the data are met." if outcome["success"] else "The data does not meet all expectations."
    )
    figures = [(name, _words(value)) for name, value in outcome["overview"].items()]
    return [
        Table(verdict, ("Expectation", "Limit", "Result", "Observed"), rows),
        Table("What the validation saw besides.", ("What", "Value"), figures),
    ]


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)


def _curves(folder: Path) -> pd.DataFrame:
    path = folder / CURVES
    if not path.is_file():
        raise BadInput(f"no curves {path}: run `dvc repro`")
    return pd.read_csv(path).rename(columns=current_column)


def _unless(column: pd.Series, nothing: float) -> Curve:
    """The column with gaps where it says `nothing`."""
    return column.mask(column == nothing, np.nan).to_numpy(np.float64)
