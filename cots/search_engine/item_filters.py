"""Filters results by the kind and the columns of their items."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cots.data.ingest.metadata import field_text, parse_metadata
from cots.errors import BadInput
from cots.search_engine.queries import ResultMedia, Where

SPLIT = "split"  # the column that every index has
ITEM_METADATA = "metadata"
MAX_COLUMNS = 100  # of metadata: each takes memory for every item, and every item may have columns of its own


class ItemFilters:
    """The columns of an index's items by which results can be filtered.

    Args:
        items: one row per item, with the columns media and split, and optionally metadata: JSON objects, or None. Of
            their fields, the `MAX_COLUMNS` that most items have become columns too.
    """

    def __init__(self, items: pd.DataFrame) -> None:
        media = items["media"].to_numpy()
        self._by_media: dict[ResultMedia, NDArray[np.bool_]] = {
            "image": media == "image",
            "video": media == "video",
        }
        metadata = [parse_metadata(text) for text in items[ITEM_METADATA]] if ITEM_METADATA in items else []
        sizes = Counter(name for fields in metadata for name in fields)
        names = sorted(sorted(sizes, key=lambda name: (-sizes[name], name))[:MAX_COLUMNS])
        columns = {name: [field_text(fields.get(name)) for fields in metadata] for name in names}
        self._columns = {name: _encode(values) for name, values in (columns | {SPLIT: items[SPLIT]}).items()}

    def select(self, media: ResultMedia, where: Where) -> NDArray[np.bool_] | None:
        """(N,) mask of the items that pass; None if all do.

        Args:
            media: kind of results; "text" and "any" let all kinds of items pass.
            where: existing columns with the values that pass.
        """
        selected = self._by_media.get(media)
        for name, values in where:
            codes, numbers = self._columns[name]
            matches = np.isin(codes, [numbers[value] for value in values if value in numbers])
            selected = matches if selected is None else selected & matches
        return selected

    def count_values(self, max_values: int) -> dict[str, list[tuple[str, int]]]:
        """The most frequent values of each column, at most `max_values`, with their numbers of items."""
        counts: dict[str, list[tuple[str, int]]] = {}
        for name, (codes, numbers) in self._columns.items():
            sizes = np.bincount(codes[codes >= 0], minlength=len(numbers)).tolist()
            by_size = sorted(zip(numbers, sizes, strict=True), key=lambda pair: (-pair[1], pair[0]))
            counts[name] = by_size[:max_values]
        return counts

    def require_columns(self, where: Where) -> None:
        """Check that the columns of a filter exist.

        Raises:
            BadInput: one does not.
        """
        for name, _ in where:
            if name not in self._columns:
                raise BadInput(f"the items have no column {name[:100]!r}: they have {', '.join(self._columns):.1000}")


def _encode(values: Iterable[str | None]) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Number the distinct values: the number of each row's value, -1 for None, and the number of each value."""
    codes, distinct = pd.factorize(np.array(list(values), object))
    return codes, {str(value): number for number, value in enumerate(distinct)}
