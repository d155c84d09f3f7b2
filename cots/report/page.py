"""The report: one HTML file that needs nothing else, no script and no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cots.evaluation import metric_table
from cots.files import atomic_file
from cots.report.attention import AttentionMap
from cots.report.gallery import GalleryQuery
from cots.report.pictures import Picture
from cots.report.plots import Chart


@dataclass(frozen=True, slots=True)
class Table:
    """A plain table; the first column names the row.

    Attributes:
        caption: what it is about.
        head: names of the columns.
        rows: texts and numbers; numbers are set to the right.
    """

    caption: str
    head: tuple[str, ...]
    rows: Sequence[Sequence[str | int | float]]


@dataclass(frozen=True, slots=True)
class ResultsTable:
    """Retrieval of one target: chance and models against each other.

    Attributes:
        title: of the target.
        asked: direction in words by its short name.
        models: metrics by the model's name, as `Measured.metrics`, the best last.
    """

    title: str
    asked: dict[str, str]
    models: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Queries with their results.

    Attributes:
        title: what is asked with what.
        candidates: how many were ranked.
        queries: to show.
    """

    title: str
    candidates: int
    queries: list[GalleryQuery]


@dataclass(frozen=True, slots=True)
class Dvae:
    """What became of the visual tokens.

    Attributes:
        pictures: originals above reconstructions.
        usage: of the codebook.
        charts: of the training.
    """

    pictures: Picture
    usage: Table
    charts: list[Chart]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A training pair of low similarity.

    Attributes:
        picture: with the caption's `text`.
        score: the latest similarity, under the momentum streams where something asks them.
        dropped: how often the filter dropped it, out of `seen` times.
        wrong: known not to belong together.
    """

    picture: Picture
    text: str
    score: float
    seen: int
    dropped: int
    wrong: bool


@dataclass(frozen=True, slots=True)
class Noise:
    """What the adaptive momentum filter found.

    Attributes:
        figures: of `noise.filter_figures`; None where no caption is known to be wrong.
        suspects: pairs with the lowest scores.
    """

    figures: dict[str, float] | None
    suspects: list[Suspect]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything on the page, in the order of the page.

    Attributes:
        title: of the page.
        about: a sentence on data and split.
        standings: one a target.
        notes: what was left out, and why.
        speed: of encoding and search.
        galleries: of queries.
        looks: where the model looks for a few captions.
        runs: charts by the run's title.
        dvae: of the visual tokens; None where there was no such training.
        noise: of the pre-training pairs; None where there was none.
        data: overview, validation and rejects.
        lineage: where everything came from.
        params: the parameter file's text.
    """

    title: str
    about: str
    results: list[ResultsTable]
    notes: list[str]
    speed: Table
    galleries: list[Gallery]
    attention_maps: list[AttentionMap]
    runs: dict[str, list[Chart]]
    dvae: Dvae | None
    noise: Noise | None
    data: list[Table]
    lineage: Table
    params: str


def write_page(path: Path, report: Report) -> None:
    """Render the report."""
    templates = Environment(
        loader=PackageLoader("cots.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["number"] = number
    html = templates.get_template("page.html.j2").render(report=report, metrics=metric_table.METRICS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as aside:
        aside.write_text(html, encoding="utf8")


def number(value: float) -> str:
    """A figure for people: whole above a thousand, otherwise three digits that count."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
