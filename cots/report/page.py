"""The report page: a single HTML file without scripts, other files or network access."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cots.data.pairs import DropRate
from cots.evaluation import metric_table
from cots.files import atomic_file
from cots.report.attention import AttentionMap
from cots.report.gallery import GalleryQuery
from cots.report.inline_images import InlineImage
from cots.report.plots import Chart


@dataclass(frozen=True, slots=True)
class Table:
    """A plain table; the first column names the row.

    Attributes:
        caption: what the table shows.
        head: names of the columns.
        rows: texts and numbers; numbers are aligned right.
    """

    caption: str
    head: tuple[str, ...]
    rows: Sequence[Sequence[str | int | float]]


@dataclass(frozen=True, slots=True)
class ResultsTable:
    """Metrics of one target: chance levels and all models.

    Attributes:
        title: of the table.
        directions: labels of the directions by name, such as `t2i`.
        models: `RetrievalResult.metrics` by name of the model, the best model last.
    """

    title: str
    directions: dict[str, str]
    models: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the best model of one target can do, in words and in one example.

    Attributes:
        title: of the target.
        sentences: one for each direction.
        example: a text whose first result is right; None if no gallery has one.
    """

    title: str
    sentences: list[str]
    example: GalleryQuery | None


@dataclass(frozen=True, slots=True)
class Gallery:
    """Queries with their results.

    Attributes:
        title: label of the direction.
        candidates: number of candidates that were ranked.
        queries: the examples.
    """

    title: str
    candidates: int
    queries: list[GalleryQuery]


@dataclass(frozen=True, slots=True)
class DvaeResults:
    """Quality of the visual tokens.

    Attributes:
        reconstructions: originals above reconstructions.
        usage: of the codebook.
        charts: of the training.
    """

    reconstructions: InlineImage
    usage: Table
    charts: list[Chart]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A training pair of low similarity.

    Attributes:
        image: the image or video.
        text: the caption.
        score: latest similarity, of the momentum encoders if they were run.
        seen: number of times that the pair was trained on.
        dropped: number of times that the filter dropped it.
        wrong: whether the caption is known to be wrong.
    """

    image: InlineImage
    text: str
    score: float
    seen: int
    dropped: int
    wrong: bool


@dataclass(frozen=True, slots=True)
class FilterResults:
    """Results of the adaptive momentum filter.

    Attributes:
        metrics: from `filter_metrics`; None if no caption is known to be wrong.
        suspects: pairs with the lowest scores.
        drops: how often captions that were made from labels were dropped, and others; empty if none was made.
    """

    metrics: dict[str, float] | None
    suspects: list[Suspect]
    drops: Mapping[str, DropRate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Content of the page, in its order.

    Attributes:
        title: of the page.
        about: a sentence on data and split.
        verdicts: by target, of its best model.
        results: metrics by target, on the whole split.
        folds: the same as means over folds; empty if the split is evaluated as a whole.
        further: what is measured beside retrieval as a whole.
        notes: what is missing, and why.
        speed: of encoding and search.
        galleries: of example queries.
        attention_maps: of a few captions.
        runs: charts by title of the training run.
        dvae: quality of the visual tokens; None if there is no dVAE.
        filter: results of the filter in pre-training; None if it recorded none.
        data: overview, rejected samples and validation.
        lineage: of code, data and models.
        params: text of the parameter file.
    """

    title: str
    about: str
    verdicts: list[Verdict]
    results: list[ResultsTable]
    folds: list[ResultsTable]
    further: list[Table]
    notes: list[str]
    speed: Table
    galleries: list[Gallery]
    attention_maps: list[AttentionMap]
    runs: dict[str, list[Chart]]
    dvae: DvaeResults | None
    filter: FilterResults | None
    data: list[Table]
    lineage: Table
    params: str


def write_page(path: Path, report: Report) -> None:
    """Render the report to a file."""
    environment = Environment(
        loader=PackageLoader("cots.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    html = environment.get_template("page.html.j2").render(report=report, metrics=metric_table.METRICS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_text(html, encoding="utf8")


def format_number(value: float) -> str:
    """Integers and values from 1,000 on without decimals, others with three significant digits."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
