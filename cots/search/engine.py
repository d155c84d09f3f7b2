"""The deployed search: encoders, the index they made and what its rows are."""

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
from cots.index.index_folder import ABOUT, CAPTIONS, FRAMES, INDEX, ITEMS, PREVIEWS, TEXTS
from cots.index.thumbnails import Thumbnails
from cots.models.dual_encoder import DualEncoder
from cots.search.queries import Query, ResultMedia, encode_queries

CAPTIONS_SHOWN = ["id", "captions", "media", "split"]


@dataclass(frozen=True, slots=True)
class Captions:
    """The gallery's captions, each once.

    Attributes:
        index: row i is caption i.
        texts: the captions.
        items: of each the row of the first item that it describes.
    """

    index: EmbeddingIndex
    texts: list[str]
    items: list[int]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the captions of an index folder.

        Raises:
            ValueError, OSError, KeyError: they are missing or damaged.
        """
        table = pd.read_parquet(folder / CAPTIONS, columns=["caption", "items"])
        index = EmbeddingIndex.load(folder / TEXTS)
        if len(index) != len(table):
            raise ValueError(f"{len(index)} vectors for {len(table)} captions")
        return cls(index, table["caption"].tolist(), [int(rows[0]) for rows in table["items"]])


class SearchEngine:
    """Ranks what is indexed by its similarity to a text or a picture.

    Args:
        model: the encoders that made the index.
        index: row i is item i.
        items: one row an item, with at least the columns `SHOWN`.
        frames: of the items that are clips.
        captions: what is ranked when texts are sought.
        previews: the tar with small copies of all frames.
    """

    def __init__(
        self,
        *,
        model: DualEncoder,
        index: EmbeddingIndex,
        items: pd.DataFrame,
        frames: FrameEmbeddings,
        captions: Captions,
        previews: Path,
    ) -> None:
        self.model, self.index, self.items, self.frames, self.previews = model, index, items, frames, previews
        self.captions = captions
        self._columns = {name: items[name].tolist() for name in CAPTIONS_SHOWN}
        media = items["media"].to_numpy()
        self._among: dict[ResultMedia, NDArray[np.bool_]] = {
            "image": media == "image",
            "video": media == "video",
        }

    @classmethod
    def load(cls, encoders: Path, index: Path) -> Self:
        """Open a model folder and an index folder.

        Raises:
            BadInput: one of them is missing or damaged, or the index was made by other encoders.
        """
        model = DualEncoder.load(encoders)
        about = read_about(index)
        if about["encoder"] != model.digest:
            raise BadInput(
                f"the index {index} was made by encoders {about['encoder'][:12]}, the model {encoders} is "
                f"{model.digest[:12]}: vectors of different encoders cannot be compared; run `dvc repro package`"
            )
        try:
            found = EmbeddingIndex.load(index / INDEX)
            items = pd.read_parquet(index / ITEMS, columns=[*CAPTIONS_SHOWN, "origin"])
            frames = FrameEmbeddings.load(index / FRAMES)
            captions = Captions.load(index)
        except (ValueError, OSError, KeyError) as error:
            raise BadInput(f"the index {index} is damaged ({error}): run `dvc repro --force index`") from None
        if not len(items) == len(frames) == len(found):
            counts = f"{len(found)} vectors for {len(items)} items and the frames of {len(frames)}"
            raise BadInput(f"the index {index} holds {counts}: repeat stage index")
        ready = model.for_inference()
        return cls(model=ready, index=found, items=items, frames=frames, captions=captions, previews=index / PREVIEWS)

    def __call__(self, queries: Sequence[Query], *, batch: int) -> list[list[dict[str, Any]]]:
        """Ranked results of every query.

        Args:
            queries: texts and pictures, mixed as they come.
            batch: encoded at once.

        Returns:
            As `ranked`.
        """
        return self.search_vectors(queries, encode_queries(self.model, queries, batch=batch))

    def search_vectors(self, queries: Sequence[Query], asked: NDArray[np.float32]) -> list[list[dict[str, Any]]]:
        """Ranked results of queries that are encoded already.

        Args:
            queries: what is asked for.
            asked: (Q, D), their vectors.

        Returns:
            For each query at most its k results, best first: rank (from 1), score (cosine), id, captions, media, split,
            row of the item, and frame, the number (from 0) of the clip's frame that is most similar to the query by
            itself; 0 for a picture. A result that is a text has the media "text", that one caption, and id, split and
            row of the first item which it describes. Fewer results where the index holds fewer, or where an approximate
            one finds fewer.
        """
        results: list[list[dict[str, Any]]] = [[] for _ in queries]
        for media in {query.media for query in queries}:
            places = [place for place, query in enumerate(queries) if query.media == media]
            most = max(queries[place].k for place in places)
            near = zip(places, *self._nearest(media, asked[places], most), strict=True)
            for place, scores, rows in near:
                hits = [(score, row) for score, row in zip(scores, rows, strict=True) if row >= 0]
                results[place] = [
                    {"rank": rank, "score": score, **self._shown(media, row, asked[place])}
                    for rank, (score, row) in enumerate(hits[: queries[place].k], start=1)
                ]
        return results

    def pictures(self, results: Sequence[dict[str, Any]]) -> list[Image.Image]:
        """Previews of one query's results: the picture, or the best frame of the clip.

        Raises:
            BadInput: the index holds none of them.
        """
        try:
            previews = Thumbnails(self.previews)
            return [previews.picture(hit["row"], hit["frame"]) for hit in results]
        except ValueError as error:
            raise BadInput(f"{error}: run `dvc repro --force index package`") from None

    def _nearest(
        self, media: ResultMedia, asked: NDArray[np.float32], k: int
    ) -> tuple[list[list[float]], list[list[int]]]:
        """Scores and rows, of captions where texts are sought and else of items."""
        index = self.captions.index if media == "text" else self.index
        among = self._among.get(media)
        held = len(index) if among is None else int(among.sum())
        if not held:
            return [[] for _ in asked], [[] for _ in asked]
        scores, rows = index.search(asked, min(k, held), id_filter=among)
        return scores.tolist(), rows.tolist()

    def _shown(self, media: ResultMedia, row: int, asked: NDArray[np.float32]) -> dict[str, Any]:
        if media == "text":
            item = self._item(self.captions.items[row])
            return item | {"captions": [self.captions.texts[row]], "media": "text", "frame": 0}
        return self._item(row) | {"frame": self.frames.best_frame(row, asked)}

    def _item(self, row: int) -> dict[str, Any]:
        shown = {name: column[row] for name, column in self._columns.items()}
        return shown | {"captions": list(shown["captions"]), "row": row}


def read_about(index: Path) -> dict[str, Any]:
    """What the index folder says of itself.

    Raises:
        BadInput: it is not an index folder.
    """
    try:
        about: dict[str, Any] = json.loads((index / ABOUT).read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{index} is not an index folder ({error}): run `dvc repro index`") from None
    return about
