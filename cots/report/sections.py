"""Builds the sections of the report from the outputs of stages; a section without files is left out."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cots.curves import (
    FILTER_THRESHOLD,
    KEEP_RATE,
    SIMILARITY_MEAN,
    TOTAL_LOSS,
    VALIDATION_RSUM,
    current_column,
    loss_columns,
)
from cots.data.pairs import drop_rates, read_pairs
from cots.data.stored_samples import decode_frames, read_stored_by_id
from cots.directions import LABELS
from cots.errors import BadInput
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.retrieval import RetrievalResult
from cots.file_names import CODEBOOK_USAGE, CURVES
from cots.report.filter_metrics import filter_metrics, label_pairs
from cots.report.gallery import collect_ids, item_queries, plan_items_to_texts, plan_texts_to_items, text_queries
from cots.report.inline_images import InlineImage
from cots.report.page import DvaeResults, FilterResults, Gallery, Suspect, Table
from cots.report.plots import Chart, Curve, draw_curves

SIDE = {"image": 112, "video": 68}  # pixels along the longer side of an image or frame
NUM_SUSPECTS = 12
NUM_REJECTS = 8  # examples of rejected samples
NO_THRESHOLD = -1.0  # value in the curves while the filter warms up
USAGE_LABELS = {
    "perplexity": "Perplexity of the codes",
    "codes": "Codes",
    "used": "Codes in use",
    "l1": "Mean absolute error of a pixel, in [0, 1]",
}

ImageLoader = Callable[[Iterable[str]], dict[str, InlineImage]]  # from ids of samples


def image_loader(shards: Path, manifest: pd.DataFrame) -> ImageLoader:
    """A function that loads small images of samples by id, with the first caption as alternative text."""
    media = dict(zip(manifest["id"], manifest["media"], strict=True))

    def load(ids: Iterable[str]) -> dict[str, InlineImage]:
        samples = read_stored_by_id(shards, manifest, ids)
        return {
            name: InlineImage.of_frames(decode_frames(sample), sample.captions[0], side=SIDE[media[name]])
            for name, sample in samples.items()
        }

    return load


def build_galleries(
    embedded: EmbeddedSplit,
    result: RetrievalResult,
    load_images: ImageLoader,
    *,
    before: EmbeddedSplit | None,
    count: int,
    seed: int,
) -> list[Gallery]:
    """Two galleries of one target, first that with texts as queries.

    Args:
        embedded: the split.
        result: retrieval on the split.
        load_images: by id.
        before: the split, embedded before fine-tuning.
        count: queries per gallery.
        seed: of their choice.
    """
    (to_texts_name, to_texts), (to_items_name, to_items) = result.directions.items()
    by_item = plan_items_to_texts(embedded, to_texts, count=count, seed=seed)
    by_text = plan_texts_to_items(embedded, to_items, count=count, seed=seed, before=before)
    images = load_images(collect_ids(embedded, by_item, by_text))
    return [
        Gallery(LABELS[to_items_name].capitalize(), to_items.candidates, text_queries(embedded, by_text, images)),
        Gallery(LABELS[to_texts_name].capitalize(), to_texts.candidates, item_queries(embedded, by_item, images)),
    ]


def training_charts(run: str, folder: Path) -> list[Chart]:
    """Charts of one run from its `curves.csv`: losses, validation, filter and speed; none of a run without steps."""
    table = _read_curves(folder)
    if table.empty:
        return []
    steps = table["step"].to_numpy(dtype=np.float64)
    losses = {name: table[name].to_numpy() for name in loss_columns(map(str, table))}
    loss_caption = f"Nats; {TOTAL_LOSS} is the weighted sum. Levels with weight 0 are not drawn."
    utilisation, data_wait = table["utilisation"].iloc[-1], table["data_wait"].iloc[-1]
    return [
        draw_curves("Losses", run, steps, losses, caption=loss_caption),
        *(_validation_charts(run, table) if VALIDATION_RSUM in table else []),
        *(_filter_charts(run, steps, table) if KEEP_RATE in table else []),
        draw_curves(
            "Speed, pairs/s",
            run,
            steps,
            {"pairs/s": table["pairs_per_second"].to_numpy()},
            caption=f"Pairs per second since the start. Training reached {utilisation:.0%} of the throughput of the "
            f"machine's matrix products and spent {data_wait:.1%} of its time waiting for data.",
        ),
    ]


def _validation_charts(run: str, table: pd.DataFrame) -> list[Chart]:
    """RSUM on the validation split at the steps after which it was measured."""
    measured = table[table[VALIDATION_RSUM].notna()]
    return [
        draw_curves(
            "RSUM on validation",
            run,
            measured["step"].to_numpy(dtype=np.float64),
            {VALIDATION_RSUM: measured[VALIDATION_RSUM].to_numpy()},
            caption="Sum of R@1, R@5 and R@10 in both directions on the validation split during training, of 600.",
        )
    ]


def _filter_charts(run: str, steps: NDArray[np.float64], table: pd.DataFrame) -> list[Chart]:
    """Similarity, threshold and keep rate of the filter, which baselines and runs without a filter lack."""
    similarity = {
        SIMILARITY_MEAN: table[SIMILARITY_MEAN].to_numpy(),
        FILTER_THRESHOLD: _mask(table[FILTER_THRESHOLD], NO_THRESHOLD),
    }
    return [
        draw_curves(
            "Pair similarity",
            run,
            steps,
            similarity,
            threshold=FILTER_THRESHOLD,
            caption="Running mean over the training pairs, and the filter's threshold after its warm-up.",
        ),
        draw_curves(
            "Pairs kept, %",
            run,
            steps,
            {KEEP_RATE: 100 * table[KEEP_RATE].to_numpy()},
            caption="Fraction of each batch that the filter keeps.",
        ),
    ]


def summarize_dvae(folder: Path) -> DvaeResults:
    """Reconstructions, codebook usage and training of the dVAE."""
    table, usage = _read_curves(folder), json.loads((folder / CODEBOOK_USAGE).read_text(encoding="utf8"))
    steps = table["step"].to_numpy()
    rows = [(label, usage[key]) for key, label in USAGE_LABELS.items()]
    return DvaeResults(
        InlineImage.of_png(folder / "reconstructions.png", "Crops of training images above their reconstructions"),
        Table("Codebook usage on unseen crops.", ("Metric", "Value"), rows),
        [
            draw_curves(
                "Reconstruction",
                "dVAE",
                steps,
                {"reconstruction": table["reconstruction"].to_numpy()},
                caption="Mean squared error of the pixels; for an imported dVAE, by batch of crops.",
            ),
            draw_curves(
                "Codes in a batch",
                "dVAE",
                steps,
                {"perplexity": table["perplexity"].to_numpy()},
                caption=f"Perplexity of the {usage['codes']} codes in each batch.",
            ),
        ],
    )


def summarize_filter(pairs: Path, manifest: pd.DataFrame, load_images: ImageLoader) -> FilterResults:
    """Metrics of the filter if some captions are known to be wrong and some not; the pairs with the lowest scores."""
    pair_table = read_pairs(pairs)
    table = label_pairs(pair_table, manifest)
    lowest = table.head(NUM_SUSPECTS)
    images = load_images(lowest["id"])
    suspects = [
        Suspect(images[row["id"]], row["text"], row["score"], row["seen"], row["dropped"], row["wrong"])
        for row in lowest.to_dict("records")
    ]
    separable = table["wrong"].any() and not table["wrong"].all()
    return FilterResults(filter_metrics(table) if separable else None, suspects, drop_rates(pair_table, manifest))


def overview_table(manifest: pd.DataFrame) -> Table:
    """Samples, captions, frames and bytes by split and media type."""
    rows = [
        (
            f"{split}, {media}s",
            len(group),
            int(group["captions"].map(len).sum()),
            int(group["wrong"].map(sum).sum()),
            int(group["frames"].sum()),
            round(float(group["bytes"].sum()) / 1e6, 1),
        )
        for (split, media), group in manifest.groupby(["split", "media"], sort=False)
    ]
    return Table("Content of the shards.", ("Split", "Samples", "Captions", "Known wrong", "Frames", "MB"), rows)


def reject_tables(rejected: pd.DataFrame) -> list[Table]:
    """Rejected samples by reason, and a few examples."""
    if rejected.empty:
        return [Table("Rejected samples.", ("Reason", "Samples"), [("none", 0)])]
    counts = rejected["reason"].value_counts()
    by_reason = [(str(reason), int(count)) for reason, count in counts.items()]
    examples = rejected.groupby("reason", sort=False).head(2).head(NUM_REJECTS)
    rows = [(row["id"], row["reason"], row["detail"]) for row in examples.to_dict("records")]
    return [
        Table("Rejected samples by reason.", ("Reason", "Samples"), by_reason),
        Table("Examples of rejected samples.", ("Sample", "Reason", "Detail"), rows),
    ]


def validation_tables(summary: Path) -> list[Table]:
    """Expectations on the data with their results, and other findings; empty if there was no validation."""
    if not summary.is_file():
        return []
    outcome = json.loads(summary.read_text(encoding="utf8"))
    rows = [
        (check["expectation"], check["limit"], "met" if check["success"] else "NOT met", _format(check["observed"]))
        for check in outcome["checks"]
    ]
    caption = "All expectations on the data are met." if outcome["success"] else "Some expectations are not met."
    overview = [(name, _format(value)) for name, value in outcome["overview"].items()]
    return [
        Table(caption, ("Expectation", "Limit", "Result", "Observed"), rows),
        Table("Other findings of the validation.", ("What", "Value"), overview),
    ]


def _format(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_format(inner)}" for name, inner in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)


def _read_curves(folder: Path) -> pd.DataFrame:
    path = folder / CURVES
    if not path.is_file():
        raise BadInput(f"no curves {path}: run `dvc repro`")
    return pd.read_csv(path).rename(columns=current_column)


def _mask(column: pd.Series, value: float) -> Curve:
    """The column with NaN in place of a value."""
    return column.mask(column == value, np.nan).to_numpy(np.float64)
