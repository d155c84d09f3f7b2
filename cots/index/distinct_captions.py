"""The distinct captions of an index's items, found without their texts in memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cots.index.index_folder import CAPTION_SCHEMA


@dataclass(frozen=True, slots=True)
class DistinctCaptions:
    """Which captions of N items are distinct, in order of first occurrence, and the items that each describes.

    Attributes:
        is_first: (M,) of all captions, item after item: whether none before it has the same text.
        items: rows of the items that each of the C distinct captions describes, ascending, caption after caption.
        starts: (C + 1,) position in `items` of the first item of each caption, and the length of `items` at the end.
    """

    is_first: NDArray[np.bool_]
    items: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def find(cls, captions: Iterable[pa.ListArray]) -> Self:
        """Compare captions by digests of 16 bytes; at its peak that takes some 100 bytes a caption.

        Args:
            captions: of each item, in pieces.
        """
        digests, lengths = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
        for piece in captions:
            texts = piece.flatten().to_pylist()
            joined = b"".join(blake2b(text.encode(), digest_size=16).digest() for text in texts)
            digests.append(np.frombuffer(joined, np.uint64).reshape(-1, 2))
            lengths.append(pc.list_value_length(piece).to_numpy(zero_copy_only=False))
        is_first, caption = _number(np.concatenate(digests))
        counts = np.concatenate(lengths)
        described = np.repeat(np.arange(len(counts)), counts)
        order = np.argsort(caption, kind="stable")
        described, caption = described[order], caption[order]
        is_new = np.ones(len(order), np.bool_)  # an item may have a caption twice
        is_new[1:] = (described[1:] != described[:-1]) | (caption[1:] != caption[:-1])
        sizes = np.bincount(caption[is_new], minlength=int(is_first.sum()))
        return cls(is_first, described[is_new], np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def texts(self, captions: Iterable[pa.ListArray]) -> Iterator[pa.StringArray]:
        """The distinct captions in pieces, of the pieces of which they were found."""
        first = 0
        for piece in captions:
            flat = piece.flatten()
            yield flat.filter(pa.array(self.is_first[first : first + len(flat)]))
            first += len(flat)

    def rows(self, captions: Iterable[pa.ListArray]) -> Iterator[pa.RecordBatch]:
        """The rows of `CAPTIONS` in pieces, of the pieces of which they were found."""
        row = 0
        for texts in self.texts(captions):
            starts = self.starts[row : row + len(texts) + 1]
            lists = pa.LargeListArray.from_arrays(starts - starts[0], self.items[starts[0] : starts[-1]])
            columns = [texts.cast(pa.string()), lists.cast(CAPTION_SCHEMA.field("items").type)]
            yield pa.RecordBatch.from_arrays(columns, schema=CAPTION_SCHEMA)
            row += len(texts)


def _number(digests: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """For each digest (M, 2) whether it is the first of its kind, and the number of the kind by first occurrence."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # equal ones stay in their order
    ordered = digests[order]
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    firsts = order[is_new]
    is_first = np.zeros(len(order), np.bool_)
    is_first[firsts] = True
    numbers = (np.cumsum(is_first) - 1)[firsts]
    kinds = np.empty(len(order), np.int64)
    kinds[order] = numbers[np.cumsum(is_new) - 1]
    return is_first, kinds
