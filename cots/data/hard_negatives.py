"""Orders training samples so that those which a model confuses come into one batch, as negatives of each other."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from cots.batching import batched
from cots.errors import BadInput

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # of a training sample
        ("nearest", pa.list_(pa.string())),  # ids of the training samples that its captions find wrongly, nearest first
    ]
)
NONE = -1  # in place of a key
T = TypeVar("T")


def read_hard_negatives(path: Path, manifest: pd.DataFrame) -> NDArray[np.int64]:
    """For each sample of the manifest the keys of its hard negatives, nearest first.

    Args:
        path: a table of `SCHEMA`; samples that the manifest lacks are left out of it.
        manifest: one row per sample.

    Returns:
        (N, k); `NONE` where a sample has fewer.

    Raises:
        BadInput: no such file, or another one.
    """
    try:
        table = pd.read_parquet(path, columns=SCHEMA.names)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read hard negatives {path} ({error}): write them with `cots hard-negatives`") from None
    keys = dict(zip(manifest["id"], manifest["key"].astype("int64"), strict=True))
    rows = dict(zip(manifest["id"], range(len(manifest)), strict=True))
    nearest = np.full((len(manifest), max(table["nearest"].map(len), default=0)), NONE, np.int64)
    for id_, others in zip(table["id"], table["nearest"], strict=True):
        if id_ in rows:
            found = [keys[other] for other in others if other in keys]
            nearest[rows[id_], : len(found)] = found
    return nearest


def followed_by_nearest(
    items: Iterable[T],
    nearest: Callable[[T], Iterable[int]],
    key: Callable[[T], int],
    *,
    share: float,
    window: int,
    rng: np.random.Generator,
) -> Iterator[T]:
    """Reorder items: each is followed, with a probability, by the nearest of its hard negatives that is still to come.

    So they lie in groups of 1 / (1 - share) on average, and each item still comes once.

    Args:
        items: in random order.
        nearest: keys of an item's hard negatives, nearest first.
        key: of an item, unique.
        share: the probability, 0 to 1.
        window: items that are reordered among each other; so many are in memory.
        rng: of the choice.
    """
    for group in batched(items, window):
        waiting = {key(item): item for item in group}
        while waiting:
            number: int | None = next(iter(waiting))
            while number is not None:
                item = waiting.pop(number)
                yield item
                close = (other for other in nearest(item) if other in waiting) if rng.random() < share else iter(())
                number = next(close, None)
