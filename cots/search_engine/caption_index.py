"""The distinct captions of an index, and the items that they describe."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cots.data.object_cache import local_part
from cots.index.embedding_index import EmbeddingIndex
from cots.index.index_folder import CAPTION_INDEX, CAPTIONS


@dataclass(frozen=True)
class CaptionIndex:
    """The distinct captions of the indexed items, searchable by their own embeddings.

    Attributes:
        index: embeddings of the captions, one row each.
        texts: the C captions.
        items: rows of the items that each caption describes, at least one, caption after caption.
        starts: (C + 1,) position in `items` of the first item of each caption, and the length of `items` at the end.
    """

    index: EmbeddingIndex
    texts: list[str]
    items: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the captions of an index folder.

        Raises:
            ValueError, OSError, KeyError: files are missing or damaged.
        """
        table = pq.read_table(local_part(folder / CAPTIONS), columns=["caption", "items"])
        index, lists = EmbeddingIndex.load(folder / CAPTION_INDEX), table["items"].combine_chunks()
        if len(index) != len(table):
            raise ValueError(f"{len(index)} vectors for {len(table)} captions")
        return cls(index, table["caption"].to_pylist(), lists.flatten().to_numpy(), lists.offsets.to_numpy())

    def describes(self, selected: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(C,) whether each caption describes one of the selected items, given as a mask (N,)."""
        return np.logical_or.reduceat(selected[self.items], self.starts[:-1])

    def first_item(self, row: int, selected: NDArray[np.bool_] | None) -> int:
        """Row of the first item that a caption describes, among the selected items (N,) if these are given."""
        items = self.items[self.starts[row] : self.starts[row + 1]]
        return int(items[0] if selected is None else items[selected[items].argmax()])

    @cached_property
    def _rows_by_item(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the captions of each item, item after item, and the position of each item's first."""
        order = np.argsort(self.items, kind="stable")
        rows = np.repeat(np.arange(len(self.texts)), np.diff(self.starts))[order]
        return rows, np.concatenate([[0], np.cumsum(np.bincount(self.items))])

    def best_caption(self, item: int, captions: Sequence[str], vector: NDArray[np.float32]) -> int | None:
        """Number, from 0, of an item's caption that is most similar to a query.

        Args:
            item: row of the item.
            captions: its captions.
            vector: (D,) embedding of the query.

        Returns:
            0 if the index cannot reconstruct its vectors; None if the item has no captions.
        """
        if len(captions) < 2:
            return 0 if captions else None
        rows, starts = self._rows_by_item
        own_rows = rows[starts[item] : starts[item + 1]]
        try:
            similarities = self.index.rows(own_rows) @ vector
        except ValueError:
            return 0
        return captions.index(self.texts[own_rows[similarities.argmax()]])
