"""Stage `index`: embeds every image and video of the gallery, builds the FAISS index and measures its recall."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial as bind
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image

from cots.batching import batched
from cots.config.index import IndexConfig
from cots.config.stages.index import IndexParams
from cots.data.manifest import read_splits, write_batches
from cots.data.samples import GALLERY, StoredSample
from cots.data.store import keep_folder, store_of
from cots.data.stored_samples import decode_frames, read_whole_shards
from cots.directions import MEDIA_OF
from cots.distributed import all_gather_object, rank, world_size
from cots.errors import BadInput, exit_on_error
from cots.evaluation.embedding import embed_texts
from cots.evaluation.fit_threshold import NONSENSE, fit_threshold
from cots.files import atomic_folder, write_json
from cots.index.auto_index import IndexChoice, choose_index, nearest_similarities, recall_of
from cots.index.distinct_captions import DistinctCaptions
from cots.index.embedding_cache import EmbeddingCache, digest_of
from cots.index.embedding_file import EmbeddingFile, Embeddings
from cots.index.embedding_index import RECALL_K, EmbeddingIndex, create_untrained
from cots.index.frame_embeddings import FrameEmbeddings
from cots.index.index_folder import (
    CAPTION_INDEX,
    CAPTION_SCHEMA,
    CAPTIONS,
    FIT,
    FRAMES,
    ITEM_INDEX,
    ITEM_SCHEMA,
    ITEMS,
    METADATA,
    THUMBNAILS,
)
from cots.index.thumbnails import thumbnail_members
from cots.init_distributed import init_distributed
from cots.models.dual_encoder import DualEncoder
from cots.rounding import rounded

TEXTS_AT_ONCE = 1 << 18  # texts that are sorted by length and encoded, and whose embeddings are in memory
MAX_HELD_OUT = 500  # captions that the score of a fit is taken from


def stage(
    shards: Path, manifest: Path, encoders: Path, out: Path, *, params: IndexParams, cache_dir: Path | None = None
) -> None:
    """Write the index of the gallery into `out`.

    Row i of items.parquet is vector i of index.faiss, with its frames in frames.safetensors and previews.tar; row i of
    captions.parquet is vector i of captions.faiss. index.json records encoders, settings and recall; fit.json the score
    below which nothing fits a text. Tables, vectors and thumbnails are kept where the shards are.

    Args:
        shards: the shard folder; manifest: the manifest file; encoders: the model folder.
        out: the index folder.
        params: the project's.
        cache_dir: folder of an embedding cache, for a single process. Samples in the cache are not encoded again;
            samples that left the gallery are dropped from it.

    Raises:
        BadInput: an input is missing, the splits are empty, or FAISS cannot build such an index from so few vectors.
    """
    settings, batch_size = params.index, params.evaluate.batch_size
    read_items = bind(read_splits, manifest, [*settings.splits, GALLERY])
    if not any(map(len, read_items(["split"]))):
        raise BadInput(f"index.splits {', '.join(settings.splits)}: {manifest} has no sample of them")
    model = DualEncoder.load(encoders)
    samples = read_whole_shards(shards, read_places(read_items(["split", "shard", "key"])))
    captions = DistinctCaptions.find(_captions_of(read_items(["split", "captions"])))
    held_out = _held_out_captions(manifest, params)
    distinct = captions.texts(_captions_of(read_items(["split", "captions"])))
    texts = chain((text for piece in distinct for text in piece.to_pylist()), held_out, NONSENSE)
    if rank():  # only rank 0 writes
        _encode_items(model, samples, None, None, None, side=settings.thumbnail_size, batch_size=batch_size)
        _encode_texts(model, texts, None, None, batch_size=batch_size)
        return
    cache_path = cache_dir / f"{model.digest}.safetensors" if cache_dir else None
    cache = EmbeddingCache.load(cache_path) if cache_path else None
    with atomic_folder(out) as partial:
        vectors, text_vectors = EmbeddingFile(model.dim, partial), EmbeddingFile(model.dim, partial)
        with wds.TarWriter(str(partial / THUMBNAILS), mtime=0, encoder=False) as thumbnail_tar:
            frames = _encode_items(
                model, samples, thumbnail_tar, cache, vectors, side=settings.thumbnail_size, batch_size=batch_size
            )
        frames.save(partial / FRAMES)
        _encode_texts(model, texts, cache, text_vectors, batch_size=batch_size)
        queries = np.split(text_vectors.pop(len(held_out) + len(NONSENSE)), [len(held_out)])
        write_tables(partial, bind(read_items, ITEM_SCHEMA.names), captions)
        index = write_index(partial, vectors, text_vectors, settings=settings, encoder=model.digest)
        if threshold := fit_threshold(*(_best_scores(index, part) for part in queries)):
            write_json(partial / FIT, rounded(threshold) | {"media": MEDIA_OF[settings.target]})
        keep_folder(partial, store_of(shards), stage="index")
    if cache and cache_path:
        cache.save(cache_path)
        for other in cache_path.parent.glob("*.safetensors"):
            if other != cache_path:
                other.unlink()


def write_tables(out: Path, read_items: Callable[[], Iterable[pa.RecordBatch]], captions: DistinctCaptions) -> None:
    """Write the tables of an index folder, items and captions.

    Args:
        out: the folder, which exists.
        read_items: reads the items from the first on, in pieces with the columns of `ITEM_SCHEMA`; `metadata` may be
            missing.
        captions: of these items.
    """
    write_batches(out / ITEMS, map(_select_item_columns, read_items()), ITEM_SCHEMA)
    write_batches(out / CAPTIONS, captions.rows(_captions_of(read_items())), CAPTION_SCHEMA)


def _select_item_columns(piece: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        piece[field.name].cast(field.type) if field.name in piece.schema.names else pa.nulls(len(piece), field.type)
        for field in ITEM_SCHEMA
    ]
    return pa.RecordBatch.from_arrays(columns, schema=ITEM_SCHEMA)


def _captions_of(pieces: Iterable[pa.RecordBatch]) -> Iterator[pa.ListArray]:
    return (piece["captions"] for piece in pieces)


def read_places(pieces: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, str]]:
    """Shard and key of each item."""
    for piece in pieces:
        yield from zip(piece["shard"].to_pylist(), piece["key"].to_pylist(), strict=True)


def write_index(
    out: Path, vectors: Embeddings, texts: Embeddings, *, settings: IndexConfig, encoder: str
) -> EmbeddingIndex:
    """Write the FAISS indices of items and captions, and index.json.

    Args:
        out: the folder, which exists.
        vectors: (N, D) embeddings of the items.
        texts: (C, D) embeddings of the distinct captions; C may be 0.
        settings: section `index`.
        encoder: digest of the encoders.

    Returns:
        The index of the items.

    Raises:
        BadInput: FAISS cannot build such an index from so few vectors.
    """
    # Every other query chooses the index, the rest measure it. Without captions, items take their place.
    queries = evenly_spaced(texts if len(texts) else vectors, 2 * settings.recall_queries)
    chosen = _build_index(vectors, queries[::2], settings, out)
    chosen.index.save(out / ITEM_INDEX)
    item_queries = evenly_spaced(vectors, settings.recall_queries)
    _build_caption_index(texts, item_queries, settings, out).save(out / CAPTION_INDEX)
    metadata = {
        "kind": chosen.factory,
        "settings": chosen.settings,
        "dim": chosen.index.dim,
        "size": len(chosen.index),
    }
    metadata |= {"captions": len(texts), "encoder": encoder}
    write_json(out / METADATA, metadata | rounded(_measure_index(chosen.index, vectors, queries[1::2])))
    return chosen.index


def _held_out_captions(manifest: Path, params: IndexParams) -> list[str]:
    """Some captions that the deployed model was not trained on."""
    distinct: dict[str, None] = {}
    for piece in read_splits(manifest, [params.evaluate.split], ["split", "media", "captions"]):
        chosen = piece.filter(pc.equal(piece["media"], MEDIA_OF[params.index.target]))
        distinct |= dict.fromkeys(chosen["captions"].flatten().to_pylist())
    captions = list(distinct)
    return captions[:: -(-len(captions) // MAX_HELD_OUT) or 1]


def _best_scores(index: EmbeddingIndex, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """(Q,) similarity of each query's nearest item."""
    return index.search(queries, 1)[0][:, 0]


def _encode_items(
    model: DualEncoder,
    samples: Iterable[StoredSample],
    thumbnail_tar: wds.TarWriter | None,
    cache: EmbeddingCache | None,
    vectors: EmbeddingFile | None,
    *,
    side: int,
    batch_size: int,
) -> FrameEmbeddings:
    """Embeddings of videos' frames; those of items are written to the file, thumbnails of all frames to the tar.

    Batches are distributed over ranks; each rank makes the thumbnails of its batches, the one with file and tar writes.
    """
    by_frame: list[NDArray[np.float32]] = []
    counts: list[int] = []
    for number, chunk in enumerate(batched(samples, batch_size * world_size())):
        start = rank() * batch_size
        local_samples = chunk[start : start + batch_size]
        videos = [decode_frames(sample) for sample in local_samples]
        first = number * batch_size * world_size() + start
        thumbnails = [thumbnail_members(row, frames, side=side) for row, frames in enumerate(videos, start=first)]
        lengths = np.array([len(frames) for frames in videos], np.int64)
        local = (*_encode_videos(model, local_samples, videos, cache, batch_size=batch_size), lengths, thumbnails)
        for item_rows, frame_rows, lengths, members in all_gather_object(local):
            if vectors is not None:
                vectors.append(item_rows)
            by_frame.append(frame_rows[np.repeat(lengths > 1, lengths)])
            counts += np.where(lengths > 1, lengths, 0).tolist()
            if thumbnail_tar is not None:
                for member in members:
                    thumbnail_tar.write(member)
                thumbnail_tar.tarstream.members.clear()  # tarfile keeps the header of everything that it wrote
    return FrameEmbeddings.of(np.concatenate(by_frame), counts)


def _encode_videos(
    model: DualEncoder,
    samples: Sequence[StoredSample],
    videos: Sequence[Sequence[Image.Image]],
    cache: EmbeddingCache | None,
    *,
    batch_size: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`encode_videos_and_frames` of the samples' frames, with embeddings from the cache where possible."""
    if cache is None:
        return model.encode_videos_and_frames(videos, batch_size=batch_size)

    def encode_missing(missing: list[int]) -> list[NDArray[np.float32]]:
        chosen = [videos[row] for row in missing]
        by_video, by_frame = model.encode_videos_and_frames(chosen, batch_size=batch_size)
        ends = np.cumsum([len(video) for video in chosen])
        frames_of = np.split(by_frame, ends[:-1])
        return [np.vstack([video[None], frames]) for video, frames in zip(by_video, frames_of, strict=True)]

    embeddings = cache.rows([digest_of(b"frames", *sample.frames) for sample in samples], encode_missing)
    by_video = np.array([rows[0] for rows in embeddings], np.float32).reshape(-1, model.dim)
    no_frames = np.empty((0, model.dim), np.float32)
    return by_video, np.concatenate([no_frames, *(rows[1:] for rows in embeddings)])


def _encode_texts(
    model: DualEncoder,
    texts: Iterable[str],
    cache: EmbeddingCache | None,
    vectors: EmbeddingFile | None,
    *,
    batch_size: int,
) -> None:
    """Write unit embeddings of the texts to the file, from the cache where possible."""
    for chunk in batched(texts, TEXTS_AT_ONCE):
        if cache is None:
            rows = embed_texts(model, chunk, batch_size=batch_size)
        else:
            encode = bind(_encode_missing_texts, model, chunk, batch_size=batch_size)
            rows = np.concatenate(cache.rows([digest_of(b"text", text.encode()) for text in chunk], encode))
        if vectors is not None:
            vectors.append(rows)


def _encode_missing_texts(
    model: DualEncoder, texts: Sequence[str], missing: Sequence[int], *, batch_size: int
) -> list[NDArray[np.float32]]:
    return list(embed_texts(model, [texts[row] for row in missing], batch_size=batch_size)[:, None])


def evenly_spaced(rows: Embeddings, max_rows: int) -> NDArray[np.float32]:
    """At most `max_rows` evenly spaced rows; a single row is repeated, so that both halves have one."""
    chosen: NDArray[np.float32] = rows[np.linspace(0, len(rows) - 1, max(min(max_rows, len(rows)), 2), dtype=np.int64)]
    return chosen


def _build_index(vectors: Embeddings, queries: NDArray[np.float32], settings: IndexConfig, folder: Path) -> IndexChoice:
    try:
        if settings.factory != "auto":
            return IndexChoice(EmbeddingIndex.build(vectors[:], settings.factory), settings.factory, "")
        max_bytes = math.inf if settings.max_memory_gb is None else settings.max_memory_gb * 1e9
        recall = settings.target_recall
        return choose_index(vectors, queries, recall=recall, k=RECALL_K, max_bytes=max_bytes, folder=folder)
    except ValueError as error:
        raise BadInput(f"index.factory: {error}") from None


def _build_caption_index(
    texts: Embeddings, queries: NDArray[np.float32], settings: IndexConfig, folder: Path
) -> EmbeddingIndex:
    if not len(texts):
        return EmbeddingIndex(create_untrained(texts.shape[1], "Flat"))
    return _build_index(texts, queries, settings, folder).index


def _measure_index(index: EmbeddingIndex, vectors: Embeddings, queries: NDArray[np.float32]) -> dict[str, float]:
    """Recall relative to exact search, and milliseconds per single query."""
    nearest = min(RECALL_K, len(index))
    kth_similarity = nearest_similarities(vectors, queries, nearest)[:, -1]
    start = time.perf_counter()
    nearest_rows = np.concatenate([index.search(query[None], nearest)[1] for query in queries])
    seconds = time.perf_counter() - start
    recall = recall_of(nearest_rows, vectors, queries, kth_similarity)
    return {"recall": recall, "ms_per_query": 1000 * seconds / len(queries)}


if __name__ == "__main__":
    with exit_on_error(), init_distributed():
        shards, manifest, models, out = map(Path, sys.argv[1:])
        params = IndexParams.load()
        stage(shards, manifest, models / params.index.target, out, params=params)
