"""Retrieval measured: samples embedded once, every query ranked in both directions, encoding and search timed."""

import io
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cots.data.intake import Ingestor, Rejected
from cots.data.samples import Sample, StoredSample
from cots.data.shards import read_shard
from cots.data.storing import ingest
from cots.directions import DIRECTIONS, Media
from cots.dist import all_gather_object, round_robin, gather_round_robin
from cots.errors import BadInput
from cots.model import DualEncoder, batched
from cots.retrieval.bootstrap import bootstrap
from cots.retrieval.index import EmbeddingIndex
from cots.retrieval.metric_table import chance_level, summarize
from cots.retrieval.metrics import RECALL_KS, RankedQueries, rank_queries, rank_queries_in_folds, rsum

DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSplit:
    """Samples and their captions in the shared space.

    Attributes:
        ids: of the N items, in the order read.
        captions: M texts, those of the first item first.
        owners: (M,) row of the item that each text describes.
        items: (N, D) unit rows; texts: (M, D) unit rows.
        item_seconds: spent encoding items, decoding left out; text_seconds: likewise for texts.
    """

    ids: tuple[str, ...]
    captions: tuple[str, ...]
    text_to_item: NDArray[np.int64]
    items: NDArray[np.float32]
    texts: NDArray[np.float32]
    item_seconds: float
    text_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalResult:
    """Retrieval in both directions.

    Attributes:
        directions: `i2t` and `t2i`, or `v2t` and `t2v`, with every query's rank.
        metrics: ready for JSON, with intervals and chance levels beside the scores; docs/evaluation.md has its schema.
    """

    directions: dict[str, RankedQueries]
    metrics: dict[str, Any]


def read_stored_samples(shards: Path, rows: pd.DataFrame) -> Iterator[StoredSample]:
    """The stored samples of some rows of the manifest, in their order.

    Args:
        shards: the shard folder.
        rows: all rows of one shard or of several, as whole splits or kinds of media are.

    Raises:
        BadInput: a shard is missing, damaged, or holds other samples than the rows say.
    """
    for name, group in rows.groupby("shard", sort=False):
        samples = list(read_shard(shards / str(name)))
        if [sample.key for sample in samples] != group["key"].tolist():
            raise BadInput(
                f"shard {shards / str(name)} does not hold what the manifest says: run `dvc repro --force prepare`"
            )
        yield from samples


def read_stored_by_id(shards: Path, manifest: pd.DataFrame, ids: Iterable[str]) -> dict[str, StoredSample]:
    """The stored samples of these ids; only the shards that hold one of them are read."""
    wanted = set(ids)
    names = manifest.loc[manifest["id"].isin(wanted), "shard"].unique()
    return {sample.id: sample for name in names for sample in read_shard(shards / name) if sample.id in wanted}


def decode_frames(sample: StoredSample) -> list[Image.Image]:
    """The decoded frames of a stored sample.

    Raises:
        BadInput: a frame cannot be decoded.
    """
    try:
        return [Image.open(io.BytesIO(frame)).convert("RGB") for frame in sample.frames]
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(f"a stored frame of {sample.id} is damaged ({error}): run `dvc repro --force prepare`") from None


def embed(model: DualEncoder, samples: Iterable[StoredSample], *, batch: int) -> EmbeddedSplit:
    """Encode every sample and all of its captions; pictures are held a batch at a time.

    Each process encodes its share of the batches, and every process has the whole result: that of one.

    Raises:
        BadInput: there are no samples, or a frame cannot be decoded.
    """
    mine: list[tuple[list[str], list[tuple[str, ...]], NDArray[np.float32]]] = []
    item_seconds = 0.0
    for chunk in round_robin(batched(samples, batch)):
        clips = [decode_frames(sample) for sample in chunk]
        start = time.perf_counter()
        vectors = model.encode_videos(clips, batch=batch)
        item_seconds += time.perf_counter() - start
        mine.append(([sample.id for sample in chunk], [sample.captions for sample in chunk], vectors))
    every = gather_round_robin(mine)
    if not every:
        raise BadInput("there is nothing to embed: no usable picture or clip")
    ids, captions, items = zip(*every, strict=True)
    own = list(chain.from_iterable(captions))
    texts = tuple(chain.from_iterable(own))
    start = time.perf_counter()
    encoded = embed_texts(model, texts, batch=batch)
    return EmbeddedSplit(
        ids=tuple(chain.from_iterable(ids)),
        captions=texts,
        text_to_item=np.repeat(np.arange(len(own)), list(map(len, own))),
        items=np.concatenate(items),
        texts=encoded,
        item_seconds=max(all_gather_object(item_seconds)),
        text_seconds=time.perf_counter() - start,
    )


def embed_texts(model: DualEncoder, texts: Sequence[str], *, batch: int) -> NDArray[np.float32]:
    """Unit rows (N, D) of texts, of which each process encodes its share of the batches."""
    own_share = [
        (text_batch.rows, model.encode_text_batches([text_batch]))
        for text_batch in round_robin(model.length_sorted_batches(texts, batch=batch))
    ]
    encoded = np.empty((len(texts), model.dim), np.float32)
    for rows, vectors in gather_round_robin(own_share):
        encoded[rows] = vectors
    return encoded


def ingest_by_media(
    samples: Iterable[Sample], intake: Ingestor
) -> tuple[dict[Media, list[StoredSample]], list[Rejected]]:
    """Samples as a source names them, opened: the usable ones by kind of media, and those that cannot be used."""
    usable: dict[Media, list[StoredSample]] = {}
    refused: list[Rejected] = []
    for number, outcome in enumerate(ingest(samples, intake)):
        if isinstance(outcome, Rejected):
            refused.append(outcome)
        else:
            key = f"{number:09d}"
            stored = StoredSample(key=key, id=outcome.id, captions=outcome.captions, frames=outcome.frames)
            usable.setdefault(outcome.media, []).append(stored)
    return usable, refused


def evaluate_retrieval(
    embedded: EmbeddedSplit, *, media: Media, folds: int, resamples: int, seed: int
) -> RetrievalResult:
    """Rank everything both ways.

    Args:
        embedded: what is retrieved from what.
        media: names the directions.
        folds: parts of consecutive items whose mean scores stand beside those of the whole set; 1 is the whole alone.
        resamples: draws of the bootstrap behind the 95 % intervals.
        seed: of these draws.

    Raises:
        BadInput: fewer items than folds.
        ValueError: an embedding is not finite.
    """
    if folds > len(embedded.ids):
        raise BadInput(
            f"{folds} folds of {len(embedded.ids)} items: set evaluate.folds or --folds to fewer, 1 for none"
        )
    spaces, names = (embedded.items, embedded.texts, embedded.text_to_item), DIRECTIONS[media]
    directions = dict(zip(names, rank_queries(*spaces), strict=True))
    metrics = _figures([directions], resamples, seed)
    if folds > 1:
        parts = [dict(zip(names, ways, strict=True)) for ways in rank_queries_in_folds(*spaces, folds)]
        metrics["folds"] = {"number": folds} | _figures(parts, resamples, seed)
    return RetrievalResult(directions=directions, metrics=rounded(metrics | {"speed": _speed(embedded)}))


def query_rows(embedded: EmbeddedSplit, measured: RetrievalResult) -> list[dict[str, Any]]:
    """One row a query, for tables and for the comparison of two models on the same queries.

    Returns:
        Rows of direction, query (unique in its direction: the item's id, or id#number of the caption), item,
        caption (its number, None where the item is the query), rank, relevant, candidates, average_precision.
    """
    first = np.searchsorted(embedded.text_to_item, embedded.text_to_item)  # (M,): number of the owner's first caption
    numbers = (np.arange(len(embedded.text_to_item)) - first).tolist()
    rows = []
    for way, captions in zip(measured.directions, ([None] * len(embedded.ids), numbers), strict=True):
        direction = measured.directions[way]
        columns = (direction.ranks.tolist(), direction.relevant.tolist(), direction.average_precision.tolist())
        for owner, caption, rank, relevant, precision in zip(
            direction.text_to_item.tolist(), captions, *columns, strict=True
        ):
            item = embedded.ids[owner]
            query = {"query": item if caption is None else f"{item}#{caption}", "item": item, "caption": caption}
            right = {"rank": rank, "relevant": relevant, "candidates": direction.candidates}
            rows.append({"direction": way, **query, **right, "average_precision": precision})
    return rows


def rounded(value: Any) -> Any:  # noqa: ANN401  JSON in, JSON out
    """Nested values with every float cut to six digits after the point."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value


def _figures(parts: Sequence[Mapping[str, RankedQueries]], resamples: int, seed: int) -> dict[str, Any]:
    """Scores, chance levels and intervals of one set of items, or their means over several."""
    by_chance = {name: _mean([chance_level(part[name]) for part in parts]) for name in parts[0]}
    to_texts, to_items = zip(*(part.values() for part in parts), strict=True)
    return {
        **{name: _mean([summarize(part[name]) for part in parts]) for name in parts[0]},
        "rsum": fmean(map(rsum, parts)),
        "chance": by_chance | {"rsum": sum(level[f"R@{k}"] for level in by_chance.values() for k in RECALL_KS)},
        "interval": bootstrap(parts, resamples=resamples, seed=seed),
        "queries": {
            "items": round(fmean(len(way.ranks) for way in to_texts)),
            "texts": round(fmean(len(way.ranks) for way in to_items)),
        },
    }


def _mean(scored: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: fmean(values[name] for values in scored) for name in scored[0]}


def _speed(embedded: EmbeddedSplit) -> dict[str, float]:
    """Encoding rates, and exact search of all texts for their ten nearest items."""
    index = EmbeddingIndex.build(embedded.items, "Flat")
    start = time.perf_counter()
    index.search(embedded.texts, min(10, len(index)))
    seconds = time.perf_counter() - start
    return {
        "items_per_second": len(embedded.ids) / embedded.item_seconds,
        "texts_per_second": len(embedded.captions) / embedded.text_seconds,
        "search_ms": 1000 * seconds / len(embedded.captions),
    }
