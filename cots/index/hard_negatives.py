"""Finds the items of an index that captions of other items find wrongly: hard negatives for the next training."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cots.batching import batched
from cots.data.object_cache import local_part
from cots.errors import BadInput
from cots.index.embedding_index import EmbeddingIndex
from cots.index.index_folder import CAPTION_INDEX, CAPTIONS, ITEM_INDEX, ITEMS

BLOCK = 1024  # captions searched at once
SPARE = 5  # times as many items are looked at as are asked for, because some fit too well


def mine_hard_negatives(folder: Path, *, count: int, max_fit: float) -> pd.DataFrame:
    """For each training item the other training items that score highest for one of its captions.

    Args:
        folder: an index folder whose splits include train.
        count: at most so many of each item.
        max_fit: an item that scores higher for a caption than this fraction of the caption's own item is taken to fit
            it as well, and is left out.

    Returns:
        Columns `id` and `nearest`, a list of ids, nearest first; only items that have some.

    Raises:
        BadInput: the folder is damaged, has no training captions, or its index does not give its vectors back.

    Source: of `max_fit`, Moreira et al., NV-Retriever, arXiv:2407.15831, "TopK-PercPos".
    """
    try:
        items = pd.read_parquet(local_part(folder / ITEMS), columns=["id", "split"])
        caption_items = pd.read_parquet(local_part(folder / CAPTIONS), columns=["items"])["items"]
        item_index, caption_index = (
            EmbeddingIndex.load(folder / ITEM_INDEX),
            EmbeddingIndex.load(folder / CAPTION_INDEX),
        )
        train = (items["split"] == "train").to_numpy()
        owners = pd.DataFrame({"caption": range(len(caption_items)), "item": caption_items}).explode("item")
        owners = owners[train[owners["item"].astype("int64")]].astype("int64").reset_index(drop=True)
        if owners.empty:
            raise BadInput(f"the index {folder} has no captions of training items: name train in index.splits")
        pairs = pd.concat(_wrong_pairs(item_index, caption_index, owners, train, count=count, max_fit=max_fit))
    except (ValueError, OSError, KeyError) as error:
        raise BadInput(f"the index {folder} cannot be used ({error}): run `dvc repro --force index`") from None
    best = pairs.groupby(["item", "other"])["score"].max().reset_index()
    best = best.sort_values(["item", "score", "other"], ascending=[True, False, True]).groupby("item").head(count)
    ids = items["id"].to_numpy()
    nearest = best.assign(other=ids[best["other"]]).groupby("item")["other"].agg(list)
    return pd.DataFrame({"id": ids[nearest.index], "nearest": nearest.to_list()})


def _wrong_pairs(
    items: EmbeddingIndex,
    captions: EmbeddingIndex,
    owners: pd.DataFrame,
    train: np.ndarray[tuple[int], np.dtype[np.bool_]],
    *,
    count: int,
    max_fit: float,
) -> Iterator[pd.DataFrame]:
    """Blocks of item, other, score: `other` scores so for a caption of `item`, which is not one of its own."""
    own_pairs = owners["caption"] * len(items) + owners["item"]
    most_owners = int(owners["caption"].value_counts().max())
    depth = min(SPARE * count + most_owners, int(train.sum()))
    for rows in batched(sorted(set(owners["caption"])), BLOCK):
        found = _search(items, captions, rows, depth, train)
        of_block = owners[owners["caption"].isin(rows)]
        vectors = items.rows(of_block["item"].to_numpy()), captions.rows(of_block["caption"].to_numpy())
        pairs = of_block.assign(own=np.einsum("nd,nd->n", *vectors)).merge(found, on="caption")
        wrong = ~(pairs["caption"] * len(items) + pairs["other"]).isin(own_pairs)
        yield pairs.loc[wrong & (pairs["score"] <= max_fit * pairs["own"]), ["item", "other", "score"]]


def _search(
    items: EmbeddingIndex,
    captions: EmbeddingIndex,
    rows: Sequence[int],
    depth: int,
    train: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> pd.DataFrame:
    """Columns caption, other, score: the training items nearest to some captions."""
    scores, others = items.search(captions.rows(rows), depth, id_filter=train)
    found = pd.DataFrame({"caption": np.repeat(rows, depth), "other": others.ravel(), "score": scores.ravel()})
    return found[found["other"] >= 0]
