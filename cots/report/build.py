"""The report put together: what was measured now and what the earlier stages left behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from cots.directions import LABELS
from cots.file_names import PAIRS, SUMMARY
from cots.report import sections
from cots.report.attention import AttentionMap
from cots.report.page import Dvae, Gallery, Noise, Report, ResultsTable, Table
from cots.report.plots import Chart
from cots.report.results import Evaluated

MODELS = {False: "Pre-trained, zero-shot", True: "Fine-tuned"}  # by whether it is fine-tuned


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOutputs:
    """What the earlier stages left behind.

    Attributes:
        shards: the shard folder.
        manifest: the samples.
        rejected: the refused ones.
        reports: with `validation`, `dvae`, `pretrain` and `finetune` below it, each of which may be absent.
    """

    shards: Path
    manifest: pd.DataFrame
    rejected: pd.DataFrame
    reports: Path


def build_report(
    evaluated: Sequence[Evaluated],
    left: StageOutputs,
    *,
    about: str,
    notes: list[str],
    lineage: Mapping[str, str],
    params: str,
    looks: list[AttentionMap],
    shown: int,
    seed: int,
) -> Report:
    """The whole page; of each target the last model listed fills the galleries.

    Args:
        evaluated: models by target, the best of each target last.
        left: of earlier stages.
        about: a sentence on data and split.
        notes: what was left out, and why.
        lineage: where everything came from, name to value; the models' digests are added.
        params: the parameter file's text.
        looks: maps of a few captions.
        shown: queries a gallery.
        seed: of the choice of queries.
    """
    best, first = ({model.target: model for model in ordered} for ordered in (evaluated, reversed(evaluated)))
    fetch = sections.pictures_of(left.shards, left.manifest)
    return Report(
        title="COTS retrieval report",
        about=about,
        results=[standing for target in best for standing in _standings(target, evaluated)],
        notes=notes,
        speed=_speed(evaluated),
        galleries=[
            gallery for model in best.values() for gallery in _galleries(model, first[model.target], fetch, shown, seed)
        ],
        attention_maps=looks,
        runs=_runs(left.reports),
        dvae=_dvae(left.reports),
        noise=_noise(left, fetch),
        data=[
            sections.overview(left.manifest),
            *sections.rejects(left.rejected),
            *sections.validation(left.reports / "validation" / SUMMARY),
        ],
        lineage=_lineage(lineage, evaluated),
        params=params,
    )


def _standings(target: str, evaluated: Sequence[Evaluated]) -> list[ResultsTable]:
    """Of the whole split, and of its folds where it was cut."""
    models = {MODELS[model.finetuned]: model.measured.metrics for model in evaluated if model.target == target}
    directions = next(model.measured.directions for model in evaluated if model.target == target)
    labels, title = {name: LABELS[name].capitalize() for name in directions}, f"{target.capitalize()} retrieval"
    folds = {name: metrics["folds"] for name, metrics in models.items() if "folds" in metrics}
    if not folds:
        return [ResultsTable(title, labels, models)]
    number = next(iter(folds.values()))["number"]
    return [ResultsTable(title, labels, models), ResultsTable(f"{title}, mean of {number} folds", labels, folds)]


def _speed(evaluated: Sequence[Evaluated]) -> Table:
    rows = [
        (
            f"{model.target}, {MODELS[model.finetuned].lower()}",
            *(model.measured.metrics["speed"][key] for key in _SPEEDS),
        )
        for model in evaluated
    ]
    return Table(
        "Encoding without decoding, and exact search of all texts for their ten nearest items, on this machine.",
        ("Model", *_SPEEDS.values()),
        rows,
    )


def _lineage(lineage: Mapping[str, str], evaluated: Sequence[Evaluated]) -> Table:
    models = [(f"Weights, {model.target}, {MODELS[model.finetuned].lower()}", model.digest) for model in evaluated]
    return Table("Where this comes from.", ("What", "Value"), [*lineage.items(), *models])


_SPEEDS = {"items_per_second": "Items/s", "texts_per_second": "Texts/s", "search_ms": "Search, ms a query"}


def _galleries(model: Evaluated, first: Evaluated, fetch: sections.Fetch, shown: int, seed: int) -> list[Gallery]:
    before = None if first is model else first.embedded
    return sections.galleries(model.embedded, model.measured, fetch, before=before, count=shown, seed=seed)


def _runs(reports: Path) -> dict[str, list[Chart]]:
    folders = {"Pre-training": reports / "pretrain"}
    folders |= {f"Fine-tuning, {path.name}": path for path in sorted((reports / "finetune").glob("*"))}
    return {title: sections.training_charts(title, path) for title, path in folders.items() if path.is_dir()}


def _dvae(reports: Path) -> Dvae | None:
    return sections.dvae(reports / "dvae") if (reports / "dvae").is_dir() else None


def _noise(left: StageOutputs, fetch: sections.Fetch) -> Noise | None:
    pairs = left.reports / "pretrain" / PAIRS
    known = pairs.is_file() and pq.read_metadata(pairs).num_rows  # a baseline learns nothing of single pairs
    return sections.noise(pairs, left.manifest, fetch) if known else None
