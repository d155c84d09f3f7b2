"""Samples and captions embedded once, batches shared between processes."""

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


def embed(model: DualEncoder, samples: Iterable[StoredSample], *, batch_size: int) -> EmbeddedSplit:
    """Encode every sample and all of its captions; pictures are held a batch at a time.

    Each process encodes its share of the batches, and every process has the whole result: that of one.

    Raises:
        BadInput: there are no samples, or a frame cannot be decoded.
    """
    mine: list[tuple[list[str], list[tuple[str, ...]], NDArray[np.float32]]] = []
    item_seconds = 0.0
    for chunk in round_robin(batched(samples, batch_size)):
        clips = [decode_frames(sample) for sample in chunk]
        start = time.perf_counter()
        vectors = model.encode_videos(clips, batch_size=batch_size)
        item_seconds += time.perf_counter() - start
        mine.append(([sample.id for sample in chunk], [sample.captions for sample in chunk], vectors))
    every = gather_round_robin(mine)
    if not every:
        raise BadInput("there is nothing to embed: no usable picture or clip")
    ids, captions, items = zip(*every, strict=True)
    own = list(chain.from_iterable(captions))
    texts = tuple(chain.from_iterable(own))
    start = time.perf_counter()
    encoded = embed_texts(model, texts, batch_size=batch_size)
    return EmbeddedSplit(
        ids=tuple(chain.from_iterable(ids)),
        captions=texts,
        text_to_item=np.repeat(np.arange(len(own)), list(map(len, own))),
        items=np.concatenate(items),
        texts=encoded,
        item_seconds=max(all_gather_object(item_seconds)),
        text_seconds=time.perf_counter() - start,
    )


def embed_texts(model: DualEncoder, texts: Sequence[str], *, batch_size: int) -> NDArray[np.float32]:
    """Unit rows (N, D) of texts, of which each process encodes its share of the batches."""
    own_share = [
        (text_batch.rows, model.encode_text_batches([text_batch]))
        for text_batch in round_robin(model.length_sorted_batches(texts, batch_size=batch_size))
    ]
    encoded = np.empty((len(texts), model.dim), np.float32)
    for rows, vectors in gather_round_robin(own_share):
        encoded[rows] = vectors
    return encoded
