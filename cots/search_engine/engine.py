"""The search engine: encoders, the index that they built, and the items of its rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from cots.data.object_cache import local_part
from cots.errors import BadInput
from cots.index.embedding_index import EmbeddingIndex
from cots.index.frame_embeddings import FrameEmbeddings
from cots.index.index_folder import FIT, FRAMES, ITEM_INDEX, ITEMS, METADATA, THUMBNAILS
from cots.index.thumbnails import Thumbnails
from cots.models.text_model import TextModel, load_text_model
from cots.search_engine.caption_index import CaptionIndex
from cots.search_engine.item_filters import ITEM_METADATA, ItemFilters
from cots.search_engine.queries import Query, ResultMedia, encode_queries

SHOWN_COLUMNS = ["id", "captions", "media", "split"]


@dataclass(frozen=True, slots=True)
class FitThreshold:
    """The score from which on the best result of a text is taken to fit it.

    Attributes:
        min_score: lowest such score.
        media: kind of items on which it was measured.
    """

    min_score: float
    media: str

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read the file `FIT` of an index folder; None if there is none.

        Raises:
            ValueError, KeyError: it is damaged.
        """
        if not path.is_file():
            return None
        values = json.loads(path.read_text(encoding="utf8"))
        return cls(float(values["min_score"]), values["media"])


class SearchEngine:
    """Ranks indexed items and captions by similarity to a text or an image.

    Args:
        model: the encoders that built the index; the text half suffices for queries by text.
        index: row i is item i.
        items: one row per item, with at least `SHOWN_COLUMNS`.
        filters: filters by the columns of these items.
        frames: frame embeddings of the items that are videos.
        captions: searched by queries with media "text".
        thumbnails: tar file with thumbnails of all frames.
        fit: tells whether a result fits a text; None if the index has no such threshold.
    """

    def __init__(
        self,
        *,
        model: TextModel,
        index: EmbeddingIndex,
        items: pd.DataFrame,
        filters: ItemFilters,
        frames: FrameEmbeddings,
        captions: CaptionIndex,
        thumbnails: Path,
        fit: FitThreshold | None,
    ) -> None:
        self.model, self.index, self.items, self.frames = model, index, items, frames
        self.captions, self.thumbnails = captions, thumbnails
        self._columns = {name: items[name].tolist() for name in SHOWN_COLUMNS}
        self.filters = filters
        self._fit = fit

    @classmethod
    def load(cls, encoders: Path, index: Path, *, texts_only: bool = False) -> Self:
        """Load a model folder and an index folder.

        Args:
            encoders: the model folder.
            index: the index folder.
            texts_only: if possible do not load the image encoder, which takes as long as everything else; every query
                must then be a text.

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
            table = local_part(index / ITEMS)
            optional = {ITEM_METADATA} & set(pq.read_schema(table).names)  # indices before 0.3 lack it
            items = pd.read_parquet(table, columns=[*SHOWN_COLUMNS, "origin", *optional])
            filters = ItemFilters(items)
            frames = FrameEmbeddings.load(index / FRAMES)
            captions = CaptionIndex.load(index)
            fit = FitThreshold.load(index / FIT)
        except (ValueError, OSError, KeyError) as error:
            raise BadInput(f"the index {index} is damaged ({error}): run `dvc repro --force index`") from None
        if not len(items) == len(frames) == len(vectors):
            counts = f"{len(vectors)} vectors for {len(items)} items and the frames of {len(frames)}"
            raise BadInput(f"the index {index} contains {counts}: run `dvc repro --force index`")
        return cls(
            model=model.for_inference(),
            index=vectors,
            items=items,
            filters=filters,
            frames=frames,
            captions=captions,
            thumbnails=index / THUMBNAILS,
            fit=fit,
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
            queries: which results each gets.
            vectors: (Q, D), query embeddings with unit rows.

        Returns:
            For each query at most k results, best first; of equal scores the lower row comes first. An approximate
            index may find fewer. The keys of a result:

            rank: from 1; score: cosine.
            id, captions, media, split, row: of the item.
            frame: number, from 0, of the video frame most similar to the query; 0 for an image.
            best_caption: number, from 0, of the caption most similar to the query; None without captions.

            The result of a search for captions has media "text", that caption alone, and id, split and row of the first
            item that it describes.
        """
        results: list[list[dict[str, Any]]] = [[] for _ in queries]
        for media, where in {(query.media, query.where) for query in queries}:
            selected = self.filters.select(media, where)
            positions = [row for row, query in enumerate(queries) if (query.media, query.where) == (media, where)]
            last_rank = max(queries[row].offset + queries[row].k for row in positions)
            ranked = self._rank(media, selected, vectors[positions], last_rank)
            for position, ranking in zip(positions, ranked, strict=True):
                query = queries[position]
                hits = [hit for hit in ranking if query.min_score is None or hit[0] >= query.min_score]
                results[position] = [
                    {"rank": rank, "score": score, **self._build_result(media, row, vectors[position], selected)}
                    for rank, (score, row) in enumerate(hits[query.offset :][: query.k], start=query.offset + 1)
                ]
        return results

    def fits(self, query: Query, results: Sequence[dict[str, Any]]) -> bool | None:
        """Whether the best result fits a text, rather than being merely the nearest of the items.

        Args:
            query: the query.
            results: its first page.

        Returns:
            None if that is not known: there are no results, the index has no threshold, the query is not a text alone,
            or it is for a kind of results on which the threshold was not measured.
        """
        is_text = isinstance(query.content, str) and len(query.terms) == 1
        if self._fit is None or query.media not in ("any", self._fit.media) or not is_text or not results:
            return None
        return bool(results[0]["score"] >= self._fit.min_score)

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

    def _rank(
        self, media: ResultMedia, selected: NDArray[np.bool_] | None, vectors: NDArray[np.float32], k: int
    ) -> list[list[tuple[float, int]]]:
        """Scores and rows of at least the k nearest captions (media "text") or items, equal scores in order of rows.

        If the next ones have the same score as the k-th, they are searched too: the order of results then does not
        depend on k, and pages neither repeat nor miss a result.
        """
        index = self.captions.index if media == "text" else self.index
        if selected is not None and media == "text":
            selected = self.captions.describes(selected)
        size = len(index) if selected is None else int(selected.sum())
        if not size:
            return [[] for _ in vectors]
        count = min(k + 1, size)
        scores, rows = index.search(vectors, count, id_filter=selected)
        while k < count < size and (scores[:, k - 1] == scores[:, -1]).any():
            count = min(2 * count, size)
            scores, rows = index.search(vectors, count, id_filter=selected)
        return [
            sorted((hit for hit in zip(*hits, strict=True) if hit[1] >= 0), key=lambda hit: (-hit[0], hit[1]))
            for hits in zip(scores.tolist(), rows.tolist(), strict=True)
        ]

    def _build_result(
        self, media: ResultMedia, row: int, vector: NDArray[np.float32], selected: NDArray[np.bool_] | None
    ) -> dict[str, Any]:
        if media == "text":
            item = self._item(self.captions.first_item(row, selected))
            return item | {"captions": [self.captions.texts[row]], "media": "text", "frame": 0, "best_caption": 0}
        item = self._item(row)
        matches = {
            "frame": self.frames.best_frame(row, vector),
            "best_caption": self.captions.best_caption(row, item["captions"], vector),
        }
        return item | matches

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


def caption_of(result: Mapping[str, Any]) -> str | None:
    """The caption of a result that is most similar to the query; None if it has no captions."""
    return result["captions"][result["best_caption"]] if result["captions"] else None
