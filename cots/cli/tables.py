"""Plain-text tables for terminals and logs."""

import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cots.directions import LABELS, TEXT_FIRST
from cots.terminal import escape_controls

NUMBER = re.compile(r"-?[0-9.]*")
GAP = 2  # spaces between columns
UNLIMITED = 100_000  # characters in a line, when output is not a terminal


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a table; columns of numbers are aligned right, others left. Control characters in cells are escaped.

    On a terminal, long cells are wrapped within their column. In a pipe or a file each row is one line, however long,
    for `grep` and `cut`.
    """
    from rich.console import Console  # imported here, because `cots --help` prints no table
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="")
    for title, *column in zip(head, *rows, strict=True):
        numbers = all(NUMBER.fullmatch(str(cell)) for cell in column)
        grid.add_column(Text(title), justify="right" if numbers else "left", no_wrap=numbers)
    for row in rows:
        grid.add_row(*(Text(escape_controls(str(cell))) for cell in row))
    console = Console(width=_width(), color_system=None)
    with console.capture() as captured:
        console.print(grid, crop=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED


def retrieval_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The headline metrics of each model and direction, each with its chance level below.

    Args:
        metrics: by name, the metrics of `cots.evaluation.retrieval.evaluate_retrieval`.
    """
    from cots.evaluation.metric_table import headline

    columns = [metric.name for metric in headline()]
    rows = [row for name, values in _with_parts(metrics) for row in _model_rows(name, values, columns)]
    rows += [row for name, values in metrics.items() for row in _across_languages(name, values, columns)]
    return table(["", "queries", *columns], rows)


def classification_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Zero-shot classification of the models that were asked for it, each with its chance level below.

    Args:
        metrics: by name, with `classification` as `cots.evaluation.classification.evaluate_classification` gives it.
    """
    from cots.evaluation.class_metrics import CLASS_METRICS

    names, rows = [metric.name for metric in CLASS_METRICS], []
    for name, values in metrics.items():
        if scores := values.get("classification"):
            rows.append([f"{name}, zero-shot", *scores["queries"].values(), *_cells(scores, names)])
            rows.append(["  by chance", "", "", *_cells(scores["chance"], names)])
    return table(["", "items", "classes", *(metric.title for metric in CLASS_METRICS)], rows)


def class_head_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """What the classification head of a model scores by what it is given, and what the most frequent class would.

    Args:
        metrics: by name, some with `class_head` as `cots.evaluation.class_head.evaluate_class_head` gives it.
    """
    from cots.evaluation.class_head import HEAD_METRICS, INPUTS

    names, rows = list(HEAD_METRICS), []
    for name, values in metrics.items():
        if scores := values.get("class_head"):
            counts = scores["queries"].values()
            rows += [[f"{name}, head by {given}", *counts, *_cells(scores[given], names)] for given in INPUTS]
            rows.append(["  most frequent class", "", "", *_cells(scores["most_frequent"], names)])
    return table(["", "items", "classes", *HEAD_METRICS.values()], rows)


def _with_parts(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each model's metrics on the whole split, then their means over folds and by language, if there are any."""
    for name, values in metrics.items():
        yield name, values
        if "folds" in values:
            yield f"{name}, mean of {values['folds']['number']} folds", values["folds"]
        for language, of_language in values.get("languages", {}).items():
            yield f"{name}, {language}", of_language


def _model_rows(name: str, values: Mapping[str, Any], columns: Sequence[str]) -> list[list[str]]:
    rows = []
    for direction in TEXT_FIRST:
        if direction in values:
            queries = values["queries"]["texts" if direction.startswith("t") else "items"]
            rows.append([f"{name}, {LABELS[direction]}", str(queries), *_cells(values[direction], columns)])
            rows.append(["  by chance", "", *_cells(values["chance"][direction], columns)])
    return rows


def _across_languages(name: str, values: Mapping[str, Any], columns: Sequence[str]) -> Iterator[list[str]]:
    """Captions in one language as queries for captions in another."""
    from cots.evaluation.by_language import across_rows

    for source, target, scores in across_rows(values):
        yield [f"{name}, text in {source} to text in {target}", str(scores["queries"]), *_cells(scores, columns)]
        yield ["  by chance", "", *_cells(scores["chance"], columns)]


def _cells(scores: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    """Formatted scores; empty for metrics that did not exist when the model was measured."""
    return [f"{scores[column]:.1f}" if column in scores else "" for column in columns]
