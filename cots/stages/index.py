"""Stage `index`: every picture and clip of the gallery as a vector, the FAISS index over them, and its recall."""

import math
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image

from cots.batching import batched
from cots.config.index import IndexConfig
from cots.config.stages.index import IndexParams
from cots.data.manifest import read_manifest, write_table
from cots.data.samples import StoredSample
from cots.data.stored_samples import decode_frames, read_stored_samples
from cots.distributed import all_gather_object, rank, world_size
from cots.errors import BadInput, exit_on_error
from cots.evaluation.embedding import embed_texts
from cots.files import atomic_folder, write_json
from cots.index.auto_index import IndexChoice, choose_index, recall_of
from cots.index.embedding_cache import EmbeddingCache, digest_of
from cots.index.embedding_index import NEAREST, EmbeddingIndex
from cots.index.frame_embeddings import FrameEmbeddings
from cots.index.index_folder import (
    ABOUT,
    CAPTION_SCHEMA,
    CAPTIONS,
    FRAMES,
    INDEX,
    ITEM_SCHEMA,
    ITEMS,
    PREVIEWS,
    TEXTS,
)
from cots.index.thumbnails import thumbnail_members
from cots.init_distributed import init_distributed
from cots.models.dual_encoder import DualEncoder
from cots.rounding import rounded


def stage(
    shards: Path, manifest: Path, encoders: Path, out: Path, *, params: IndexParams, memory: Path | None = None
) -> None:
    """Write the gallery's index into `out`.

    Row i of items.parquet is vector i of index.faiss, with its frames in frames.safetensors and previews.tar; row i of
    captions.parquet is vector i of captions.faiss. index.json says what made them and how well they find.

    Args:
        shards: the shard folder; manifest: the manifest file; encoders: the model folder.
        out: the index folder.
        params: the project's.
        memory: folder where vectors are remembered from one call to the next, of one process; what these encoders
            have encoded before is not encoded again, what left the gallery is forgotten.

    Raises:
        BadInput: an input is missing, the splits hold nothing, or FAISS cannot build this kind from so few vectors.
    """
    settings, batch = params.index, params.evaluate.batch_size
    table = read_manifest(manifest)
    items = table[table["split"].isin(settings.splits)]
    if items.empty:
        raise BadInput(f"index.splits {', '.join(settings.splits)}: {manifest} has no sample of them")
    model = DualEncoder.load(encoders)
    captions = _captions(items)
    if rank():  # the first process writes
        _encoded(model, read_stored_samples(shards, items), None, None, side=settings.thumbnail_size, batch=batch)
        embed_texts(model, [str(row["caption"]) for row in captions], batch=batch)
        return
    kept = memory / f"{model.digest}.safetensors" if memory else None
    known = EmbeddingCache.load(kept) if kept else None
    with atomic_folder(out) as aside:
        with wds.TarWriter(str(aside / PREVIEWS), mtime=0, encoder=False) as previews:
            samples = read_stored_samples(shards, items)
            vectors, frames = _encoded(model, samples, previews, known, side=settings.thumbnail_size, batch=batch)
        frames.save(aside / FRAMES)
        write_table(aside / ITEMS, items[ITEM_SCHEMA.names].to_dict("records"), ITEM_SCHEMA)
        texts = _text_vectors(model, [str(row["caption"]) for row in captions], known, batch=batch)
        write_table(aside / CAPTIONS, captions, CAPTION_SCHEMA)
        queries = spread(texts, 2 * settings.recall_queries)  # every other one chooses the index, the rest measure it
        chosen = _made(vectors, queries[::2], settings)
        chosen.index.save(aside / INDEX)
        _made(texts, spread(vectors, settings.recall_queries), settings).index.save(aside / TEXTS)
        about = {"kind": chosen.kind, "settings": chosen.settings, "dim": chosen.index.dim, "size": len(chosen.index)}
        about |= {"captions": len(captions), "encoder": model.digest}
        write_json(aside / ABOUT, about | rounded(_measured(chosen.index, vectors, queries[1::2])))
    if known and kept:
        known.save(kept)
        for other in kept.parent.glob("*.safetensors"):
            if other != kept:
                other.unlink()


def _encoded(
    model: DualEncoder,
    samples: Iterable[StoredSample],
    previews: wds.TarWriter | None,
    known: EmbeddingCache | None,
    *,
    side: int,
    batch: int,
) -> tuple[NDArray[np.float32], FrameEmbeddings]:
    """One vector an item, and one for each frame of those with several; previews of all frames go into the tar.

    Each process encodes every so many batches and makes their previews, which the one with a tar writes.
    """
    whole: list[NDArray[np.float32]] = []
    own: list[NDArray[np.float32]] = []
    counts: list[int] = []
    for number, chunk in enumerate(batched(samples, batch * world_size())):
        start = rank() * batch
        share = chunk[start : start + batch]
        clips = [decode_frames(sample) for sample in share]
        first = number * batch * world_size() + start
        small = [thumbnail_members(row, frames, side=side) for row, frames in enumerate(clips, start=first)]
        lengths = np.array([len(clip) for clip in clips], np.int64)
        mine = (*_clip_vectors(model, share, clips, known, batch=batch), lengths, small)
        for rows, single, lengths, members in all_gather_object(mine):
            whole.append(rows)
            own.append(single[np.repeat(lengths > 1, lengths)])
            counts += np.where(lengths > 1, lengths, 0).tolist()
            if previews is not None:
                for sample in members:
                    previews.write(sample)
    return np.concatenate(whole), FrameEmbeddings.of(np.concatenate(own), counts)


def _clip_vectors(
    model: DualEncoder,
    samples: Sequence[StoredSample],
    clips: Sequence[Sequence[Image.Image]],
    known: EmbeddingCache | None,
    *,
    batch: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `encode_videos_and_frames` gives for the clips, which are the samples' frames."""
    if known is None:
        return model.encode_videos_and_frames(clips, batch=batch)

    def encoded(places: list[int]) -> list[NDArray[np.float32]]:
        whole, single = model.encode_videos_and_frames([clips[place] for place in places], batch=batch)
        ends = np.cumsum([len(clips[place]) for place in places])
        return [np.vstack([row[None], own]) for row, own in zip(whole, np.split(single, ends[:-1]), strict=True)]

    remembered = known.rows([digest_of(b"frames", *sample.frames) for sample in samples], encoded)
    width = (0, model.dim)
    whole = np.array([rows[0] for rows in remembered], np.float32).reshape(-1, model.dim)
    return whole, np.concatenate([np.empty(width, np.float32), *(rows[1:] for rows in remembered)])


def _text_vectors(
    model: DualEncoder, texts: Sequence[str], known: EmbeddingCache | None, *, batch: int
) -> NDArray[np.float32]:
    """Unit rows (N, D) of the texts."""
    if known is None:
        return embed_texts(model, texts, batch=batch)

    def encoded(places: list[int]) -> list[NDArray[np.float32]]:
        return list(embed_texts(model, [texts[place] for place in places], batch=batch)[:, None])

    return np.concatenate(known.rows([digest_of(b"text", text.encode()) for text in texts], encoded))


def _captions(items: pd.DataFrame) -> list[dict[str, object]]:
    """Every caption once, with the rows of the items that it describes."""
    rows: dict[str, list[int]] = {}
    for row, captions in enumerate(items["captions"]):
        for caption in captions:
            rows.setdefault(caption, []).append(row)
    return [{"caption": caption, "items": sorted(set(described))} for caption, described in rows.items()]


def spread(rows: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """At most so many of the rows, evenly spaced; of a single row two, so that every other one is one."""
    return rows[np.linspace(0, len(rows) - 1, max(min(most, len(rows)), 2), dtype=np.int64)]


def _made(vectors: NDArray[np.float32], queries: NDArray[np.float32], settings: IndexConfig) -> IndexChoice:
    try:
        if settings.factory != "auto":
            return IndexChoice(EmbeddingIndex.build(vectors, settings.factory), settings.factory, "")
        room = math.inf if settings.max_memory_gb is None else settings.max_memory_gb * 1e9
        return choose_index(vectors, queries, recall=settings.target_recall, k=NEAREST, max_bytes=room)
    except ValueError as error:
        raise BadInput(f"index.factory: {error}") from None


def _measured(index: EmbeddingIndex, vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> dict[str, float]:
    """Recall against exact search, and milliseconds a query asked alone."""
    nearest = min(NEAREST, len(index))
    exact, _ = EmbeddingIndex.build(vectors, "Flat").search(queries, nearest)
    start = time.perf_counter()
    nearest_rows = np.concatenate([index.search(query[None], nearest)[1] for query in queries])
    seconds = time.perf_counter() - start
    recall = recall_of(nearest_rows, vectors, queries, exact[:, -1])
    return {"recall": recall, "ms_per_query": 1000 * seconds / len(queries)}


if __name__ == "__main__":
    with exit_on_error(), init_distributed():
        stage(*map(Path, sys.argv[1:]), params=IndexParams.load())
