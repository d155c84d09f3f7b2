"""The search engine: encoders, the index that they built, and the items of its rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cots.errors import BadInput
from cots.index.embedding_index import EmbeddingIndex
from cots.index.frame_embeddings import FrameEmbeddings
from cots.index.index_folder import CAPTION_INDEX, CAPTIONS, FRAMES, ITEM_INDEX, ITEMS, METADATA, THUMBNAILS
from cots.index.thumbnails import Thumbnails
from cots.models.text_model import TextModel, load_text_model
from cots.search.queries import Query, ResultMedia, encode_queries

SHOWN_COLUMNS = ["id", "captions", "media", "split"]


@dataclass(frozen=True, slots=True)
class Captions:
    """The distinct captions of the gallery.

    Attributes:
        index: row i is caption i.
        texts: the captions.
        items: for each caption, the row of the first item that it describes.
    """

    index: EmbeddingIndex
    texts: list[str]
    items: list[int]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the captions of an index folder.

        Raises:
            ValueError, OSError, KeyError: files are missing or damaged.
        """
        table = pd.read_parquet(folder / CAPTIONS, columns=["caption", "items"])
        index = EmbeddingIndex.load(folder / CAPTION_INDEX)
        if len(index) != len(table):
            raise ValueError(f"{len(index)} vectors for {len(table)} captions")
        return cls(index, table["caption"].tolist(), [int(rows[0]) for rows in table["items"]])


class SearchEngine:
    """Ranks indexed items and captions by similarity to a text or an image.

    Args:
        model: the encoders that built the index; the text half suffices for queries by text.
        index: row i is item i.
        items: one row per item, with at least `SHOWN_COLUMNS`.
        frames: frame embeddings of the items that are videos.
        captions: searched for queries with media "text".
        thumbnails: tar file with thumbnails of all frames.
    """

    def __init__(
        self,
        *,
        model: TextModel,
        index: EmbeddingIndex,
        items: pd.DataFrame,
        frames: FrameEmbeddings,
        captions: Captions,
        thumbnails: Path,
    ) -> None:
        self.model, self.index, self.items, self.frames = model, index, items, frames
        self.captions, self.thumbnails = captions, thumbnails
        self._columns = {name: items[name].tolist() for name in SHOWN_COLUMNS}
        media = items["media"].to_numpy()
        self._id_filters: dict[ResultMedia, NDArray[np.bool_]] = {
            "image": media == "image",
            "video": media == "video",
        }

    @classmethod
    def load(cls, encoders: Path, index: Path, *, texts_only: bool = False) -> Self:
        """Load a model folder and an index folder.

        Args:
            encoders: the model folder; index: the index folder.
            texts_only: if possible load no image encoder, which takes as long as all the rest; every query must then
                be a text.

        Raises:
            BadInput: one of them is missing or damaged, or the index was built by other encoders.
        """
        model = _load_model(encoders, texts_only=texts_only)
        metadata = read_metadata(index)
        if metadata["encoder"] != model.digest:
            raise BadInput(
                f"the index {index} was built by encoders {metadata['encoder'][:12]}, the model {encoders} is "
                f"{model.digest[:12]}: embeddings of different encoders cannot be compared; run `dvc repro package`"
            )
        try:
            vectors = EmbeddingIndex.load(index / ITEM_INDEX)
            items = pd.read_parquet(index / ITEMS, columns=[*SHOWN_COLUMNS, "origin"])
            frames = FrameEmbeddings.load(index / FRAMES)
            captions = Captions.load(index)
        except (ValueError, OSError, KeyError) as error:
            raise BadInput(f"the index {index} is damaged ({error}): run `dvc repro --force index`") from None
        if not len(items) == len(frames) == len(vectors):
            counts = f"{len(vectors)} vectors for {len(items)} items and the frames of {len(frames)}"
            raise BadInput(f"the index {index} contains {counts}: run `dvc repro --force index`")
        ready = model.for_inference()
        return cls(
            model=ready, index=vectors, items=items, frames=frames, captions=captions, thumbnails=index / THUMBNAILS
        )

    def __call__(self, queries: Sequence[Query], *, batch_size: int) -> list[list[dict[str, Any]]]:
        """Encode queries and rank the results of each.

        Args:
            queries: texts and images in any order.
            batch_size: queries encoded together.

        Returns:
            See `search_vectors`.
        """
        return self.search_vectors(queries, encode_queries(self.model, queries, batch_size=batch_size))

    def search_vectors(self, queries: Sequence[Query], vectors: NDArray[np.float32]) -> list[list[dict[str, Any]]]:
        """Ranked results of encoded queries.

        Args:
            queries: k and media of each result list.
            vectors: (Q, D), query embeddings with unit rows.

        Returns:
            For each query at most k results, best first: rank (from 1), score (cosine), id, captions, media, split, row
            of the item, and frame: the number (from 0) of the video frame most similar to the query, 0 for an image. A
            text result has media "text", a single caption, and id, split and row of the first item that the caption
            describes. There are fewer than k results if the index has fewer or an approximate search finds fewer.
        """
        results: list[list[dict[str, Any]]] = [[] for _ in queries]
        for media in {query.media for query in queries}:
            positions = [position for position, query in enumerate(queries) if query.media == media]
            max_k = max(queries[position].k for position in positions)
            nearest = zip(positions, *self._nearest(media, vectors[positions], max_k), strict=True)
            for position, scores, rows in nearest:
                hits = [(score, row) for score, row in zip(scores, rows, strict=True) if row >= 0]
                results[position] = [
                    {"rank": rank, "score": score, **self._build_result(media, row, vectors[position])}
                    for rank, (score, row) in enumerate(hits[: queries[position].k], start=1)
                ]
        return results

    def result_images(self, results: Sequence[dict[str, Any]]) -> list[Image.Image]:
        """Thumbnails of one query's results: the image, or the best frame of the video.

        Raises:
            BadInput: the index has no thumbnails.
        """
        try:
            thumbnails = Thumbnails(self.thumbnails)
            return [thumbnails.image(result["row"], result["frame"]) for result in results]
        except ValueError as error:
            raise BadInput(f"{error}: run `dvc repro --force index package`") from None

    def _nearest(
        self, media: ResultMedia, vectors: NDArray[np.float32], k: int
    ) -> tuple[list[list[float]], list[list[int]]]:
        """Scores and rows of the k nearest captions (media "text") or items."""
        index = self.captions.index if media == "text" else self.index
        id_filter = self._id_filters.get(media)
        size = len(index) if id_filter is None else int(id_filter.sum())
        if not size:
            return [[] for _ in vectors], [[] for _ in vectors]
        scores, rows = index.search(vectors, min(k, size), id_filter=id_filter)
        return scores.tolist(), rows.tolist()

    def _build_result(self, media: ResultMedia, row: int, vector: NDArray[np.float32]) -> dict[str, Any]:
        if media == "text":
            item = self._item(self.captions.items[row])
            return item | {"captions": [self.captions.texts[row]], "media": "text", "frame": 0}
        return self._item(row) | {"frame": self.frames.best_frame(row, vector)}

    def _item(self, row: int) -> dict[str, Any]:
        shown = {name: column[row] for name, column in self._columns.items()}
        return shown | {"captions": list(shown["captions"]), "row": row}


def _load_model(folder: Path, *, texts_only: bool) -> TextModel:
    if texts_only and (model := load_text_model(folder)):
        return model
    from cots.models.dual_encoder import DualEncoder  # imports timm

    return DualEncoder.load(folder)


def read_metadata(index: Path) -> dict[str, Any]:
    """Read the metadata of an index folder.

    Raises:
        BadInput: the folder is not an index folder.
    """
    try:
        metadata: dict[str, Any] = json.loads((index / METADATA).read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{index} is not an index folder ({error}): run `dvc repro index`") from None
    return metadata
