"""The captions of an index that are nearest to one of its items, by the stored embeddings alone."""

from collections.abc import Collection
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from cots.data.object_cache import local_part
from cots.errors import BadInput
from cots.index.embedding_index import EmbeddingIndex
from cots.index.index_folder import CAPTION_INDEX, CAPTIONS, ITEM_INDEX, ITEMS


class NearestCaptions:
    """Compares the items of an index with its captions.

    Args:
        items: index of the items, whose vectors it gives back.
        ids: of the items, in their order.
        captions: index of the captions.
        texts: of the captions, in their order.
    """

    def __init__(
        self, items: EmbeddingIndex, ids: Collection[str], captions: EmbeddingIndex, texts: Collection[str]
    ) -> None:
        self._items, self._captions, self._texts = items, captions, list(texts)
        self._item_rows = {sample: row for row, sample in enumerate(ids)}
        self._text_rows = {text: row for row, text in enumerate(texts)}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read an index folder.

        Raises:
            BadInput: the folder is damaged, or its index does not give its vectors back.
        """
        try:
            ids = pd.read_parquet(local_part(folder / ITEMS), columns=["id"])["id"]
            texts = pd.read_parquet(local_part(folder / CAPTIONS), columns=["caption"])["caption"]
            items, captions = EmbeddingIndex.load(folder / ITEM_INDEX), EmbeddingIndex.load(folder / CAPTION_INDEX)
            if (len(items), len(captions)) != (len(ids), len(texts)):
                raise ValueError("its tables and vectors have different lengths")
            items.rows([0])
        except (ValueError, OSError, KeyError) as error:
            raise BadInput(f"the index {folder} cannot be used ({error}): run `dvc repro --force index`") from None
        return cls(items, ids, captions, texts)

    def similarity(self, sample: str, caption: str) -> float | None:
        """Cosine of an item and a caption; None if the index lacks one of them."""
        if sample not in self._item_rows or caption not in self._text_rows:
            return None
        item, text = self._items.rows([self._item_rows[sample]]), self._captions.rows([self._text_rows[caption]])
        return float(np.vdot(item, text))

    def nearest(self, sample: str, own: Collection[str], k: int) -> list[tuple[str, float]]:
        """The k captions nearest to an item, with their cosines, nearest first.

        Args:
            sample: id of the item; one that the index lacks has no nearest captions.
            own: captions that are left out, such as those of the item.
            k: there may be fewer.
        """
        depth = min(k + len(own), len(self._texts))
        if sample not in self._item_rows or not depth:
            return []
        scores, rows = self._captions.search(self._items.rows([self._item_rows[sample]]), depth)
        ranked = ((self._texts[row], float(score)) for row, score in zip(rows[0], scores[0], strict=True) if row >= 0)
        return [(text, score) for text, score in ranked if text not in own][:k]
