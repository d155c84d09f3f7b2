"""Which rows of the manifest each shard of the training samples holds, read piece by piece."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cots.errors import BadInput

SHARD_COLUMNS = ("split", "media", "shard")


def find_shard_rows(pieces: Iterable[pa.RecordBatch], media: tuple[str, ...]) -> dict[str, range]:
    """The rows of the training samples in each of their shards, by the shard's name in alphabetical order.

    Args:
        pieces: of the manifest, with `SHARD_COLUMNS` at least.
        media: "image" and/or "video": the samples to train on.

    Raises:
        BadInput: the samples of a shard do not follow each other, which `prepare` writes nowhere.
    """
    first, shards = 0, dict[str, range]()
    for piece in pieces:
        selected = pc.and_(pc.equal(piece["split"], "train"), pc.is_in(piece["media"], pa.array(media)))
        for name, part in _runs(piece["shard"], selected):
            part = range(first + part.start, first + part.stop)
            known = shards.get(name, range(part.start, part.start))
            if known.stop != part.start:
                raise BadInput(
                    f"the rows of {name} in the manifest do not follow each other: run `dvc repro --force prepare`"
                )
            shards[name] = range(known.start, part.stop)
        first += len(piece)
    return dict(sorted(shards.items()))


def _runs(shards: pa.StringArray, selected: pa.BooleanArray) -> Iterator[tuple[str, range]]:
    """The selected rows, as runs of rows with the same shard."""
    codes = shards.dictionary_encode()
    numbers = np.where(selected.to_numpy(zero_copy_only=False), codes.indices.to_numpy(), -1)
    starts = np.flatnonzero(np.diff(numbers, prepend=-2))
    for start, stop in pairwise([*starts.tolist(), len(numbers)]):
        if numbers[start] >= 0:
            yield codes.dictionary[int(numbers[start])].as_py(), range(start, stop)
