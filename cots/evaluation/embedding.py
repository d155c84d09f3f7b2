"""Embeds samples and captions; ranks share the batches."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from cots.batching import batched
from cots.data.samples import StoredSample
from cots.data.stored_samples import decode_frames
from cots.distributed import all_gather_object, gather_round_robin, round_robin
from cots.errors import BadInput
from cots.models.dual_encoder import DualEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSplit:
    """Samples and their captions in the shared space.

    Attributes:
        ids: of the N items, in the order in which they were read.
        captions: M texts, those of the first item first.
        text_to_item: (M,) row of the item that each text describes.
        items: (N, D) unit rows.
        texts: (M, D) unit rows.
        item_seconds: time of encoding the items, without decoding.
        text_seconds: time of encoding the texts.
        languages: (M,) BCP 47 tag of each text, empty if unknown.
    """

    ids: tuple[str, ...]
    captions: tuple[str, ...]
    text_to_item: NDArray[np.int64]
    items: NDArray[np.float32]
    texts: NDArray[np.float32]
    item_seconds: float
    text_seconds: float
    languages: tuple[str, ...] = ()


def embed(model: DualEncoder, samples: Iterable[StoredSample], *, batch_size: int) -> EmbeddedSplit:
    """Encode samples and all their captions; images are in memory one batch at a time.

    Each rank encodes its share of the batches, and all ranks return the whole result, as a single process would.

    Raises:
        BadInput: there are no samples, or a frame cannot be decoded.
    """
    encoded_here: list[tuple[list[str], list[tuple[str, ...]], list[Sequence[str]], NDArray[np.float32]]] = []
    item_seconds = 0.0
    for chunk in round_robin(batched(samples, batch_size)):
        videos = [decode_frames(sample) for sample in chunk]
        start = time.perf_counter()
        vectors = model.encode_videos(videos, batch_size=batch_size)
        item_seconds += time.perf_counter() - start
        languages: list[Sequence[str]] = [sample.languages or [""] * len(sample.captions) for sample in chunk]
        encoded_here.append(
            ([sample.id for sample in chunk], [sample.captions for sample in chunk], languages, vectors)
        )
    encoded = gather_round_robin(encoded_here)
    if not encoded:
        raise BadInput("there is nothing to embed: no usable image or video")
    ids, captions, tags, items = zip(*encoded, strict=True)
    captions_by_item = list(chain.from_iterable(captions))
    texts = tuple(chain.from_iterable(captions_by_item))
    start = time.perf_counter()
    text_embeddings = embed_texts(model, texts, batch_size=batch_size)
    return EmbeddedSplit(
        ids=tuple(chain.from_iterable(ids)),
        captions=texts,
        text_to_item=np.repeat(np.arange(len(captions_by_item)), list(map(len, captions_by_item))),
        items=np.concatenate(items),
        texts=text_embeddings,
        item_seconds=max(all_gather_object(item_seconds)),
        text_seconds=time.perf_counter() - start,
        languages=tuple(chain.from_iterable(chain.from_iterable(tags))),
    )


def embed_texts(model: DualEncoder, texts: Sequence[str], *, batch_size: int) -> NDArray[np.float32]:
    """Unit rows (N, D) of texts; each rank encodes its share of the batches."""
    encoded_here = [
        (text_batch.rows, model.encode_text_batches([text_batch]))
        for text_batch in round_robin(model.length_sorted_batches(texts, batch_size=batch_size))
    ]
    embeddings = np.empty((len(texts), model.dim), np.float32)
    for rows, vectors in gather_round_robin(encoded_here):
        embeddings[rows] = vectors
    return embeddings
