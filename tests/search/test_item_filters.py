"""Columns of items that results are filtered by."""

import json

import pandas as pd

from cots.search_engine.item_filters import MAX_COLUMNS, ItemFilters


def test_items_that_have_columns_of_their_own_take_no_memory_for_each_other() -> None:
    """Every column takes memory for every item, so that these would take the square of their number."""
    count = 5 * MAX_COLUMNS
    metadata = [json.dumps({f"own {row}": 1, "shared": row % 2}) for row in range(count)]
    items = pd.DataFrame({"media": "image", "split": "train", "metadata": metadata})
    columns = ItemFilters(items).count_values(2)
    assert len(columns) == MAX_COLUMNS + 1
    assert columns["shared"] == [("0", count // 2), ("1", count // 2)]
    assert columns["split"] == [("train", count)]
