"""Plain tables for terminals and logs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cots.directions import LABELS, TEXT_FIRST

NUMBER = re.compile(r"-?[0-9.]*")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns side by side: those that hold numbers alone to the right, the others to the left."""
    columns = [[title, *map(str, column)] for title, *column in zip(head, *rows, strict=True)]
    lines = zip(*map(_aligned, columns), strict=True)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def retrieval_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The headline metrics of each model and direction, with chance in the line below.

    Args:
        metrics: by name, what `cots.evaluation.measure` gives.
    """
    from cots.retrieval.metric_table import headline

    columns = [metric.name for metric in headline()]
    rows = [row for name, values in _with_folds(metrics) for row in _model_rows(name, values, columns)]
    return table(["", "queries", *columns], rows)


def _with_folds(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every model's figures of the whole set, then those of its folds where there are any."""
    for name, values in metrics.items():
        yield name, values
        if "folds" in values:
            yield f"{name}, mean of {values['folds']['number']} folds", values["folds"]


def _model_rows(name: str, values: Mapping[str, Any], columns: Sequence[str]) -> list[list[str]]:
    rows = []
    for direction in TEXT_FIRST:
        if direction in values:
            queries = values["queries"]["texts" if direction.startswith("t") else "items"]
            rows.append([f"{name}, {LABELS[direction]}", str(queries), *_cells(values[direction], columns)])
            rows.append(["  by chance", "", *_cells(values["chance"][direction], columns)])
    return rows


def _cells(scores: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    """Empty where the figures are older than the metric."""
    return [f"{scores[column]:.1f}" if column in scores else "" for column in columns]


def _aligned(column: Sequence[str]) -> list[str]:
    width = max(map(len, column))
    numbers = all(NUMBER.fullmatch(cell) for cell in column[1:])
    return [cell.rjust(width) if numbers else cell.ljust(width) for cell in column]
