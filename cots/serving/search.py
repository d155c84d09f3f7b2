"""The deployed search: encoders, the index they made and what its rows are."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cots.errors import BadInput
from cots.model import RetrievalModel
from cots.retrieval.frames import FrameVectors
from cots.retrieval.index import EmbeddingIndex
from cots.retrieval.previews import read_previews
from cots.serving.queries import Query, vectors

INDEX, ITEMS, ABOUT = "index.faiss", "items.parquet", "index.json"
FRAMES, PREVIEWS = "frames.safetensors", "previews.tar"
SHOWN = ["id", "captions", "media", "split"]


class Search:
    """Ranks indexed pictures and clips by their similarity to a text or a picture.

    Args:
        model: the encoders that made the index.
        index: row i is item i.
        items: one row an item, with at least the columns `SHOWN`.
        frames: of the items that are clips.
        previews: the tar with small copies of all frames.
    """

    def __init__(
        self,
        *,
        model: RetrievalModel,
        index: EmbeddingIndex,
        items: pd.DataFrame,
        frames: FrameVectors,
        previews: Path,
    ) -> None:
        self.model, self.index, self.items, self.frames, self.previews = model, index, items, frames, previews

    @classmethod
    def load(cls, encoders: Path, index: Path) -> Self:
        """Open a model folder and an index folder.

        Raises:
            BadInput: one of them is missing or damaged, or the index was made by other encoders.
        """
        model = RetrievalModel.load(encoders)
        about = read_about(index)
        if about["encoder"] != model.digest:
            raise BadInput(
                f"the index {index} was made by encoders {about['encoder'][:12]}, the model {encoders} is "
                f"{model.digest[:12]}: vectors of different encoders cannot be compared; run `dvc repro package`"
            )
        try:
            found = EmbeddingIndex.load(index / INDEX)
            items = pd.read_parquet(index / ITEMS, columns=SHOWN)
            frames = FrameVectors.load(index / FRAMES)
        except (ValueError, OSError, KeyError) as error:
            raise BadInput(f"the index {index} is damaged ({error}): run `dvc repro --force index`") from None
        if not len(items) == len(frames) == len(found):
            counts = f"{len(found)} vectors for {len(items)} items and the frames of {len(frames)}"
            raise BadInput(f"the index {index} holds {counts}: repeat stage index")
        return cls(model=model, index=found, items=items, frames=frames, previews=index / PREVIEWS)

    def __call__(self, queries: Sequence[Query], *, batch: int) -> list[list[dict[str, Any]]]:
        """Ranked results of every query.

        Returns:
            For each query at most its k items, best first: rank (from 1), score (cosine), id, captions, media, split,
            and frame, the number (from 0) of the clip's frame that is most similar to the query by itself; 0 for a
            picture. Fewer where the index holds fewer, or where an approximate one finds fewer.
        """
        if not queries:
            return []
        most = min(max(query.k for query in queries), len(self.index))
        asked = vectors(self.model, queries, batch=batch)
        scores, rows = self.index.search(asked, most)
        found = zip(queries, asked, scores.tolist(), rows.tolist(), strict=True)
        return [self._results(vector, near[: query.k], own[: query.k]) for query, vector, near, own in found]

    def pictures(self, results: Sequence[dict[str, Any]]) -> list[Image.Image]:
        """Previews of one query's results: the picture, or the best frame of the clip.

        Raises:
            BadInput: the index holds none of them.
        """
        rows = {name: row for row, name in enumerate(self.items["id"])}
        try:
            return read_previews(self.previews, [(rows[hit["id"]], hit["frame"]) for hit in results])
        except ValueError as error:
            raise BadInput(f"{error}: run `dvc repro --force index package`") from None

    def _results(self, asked: NDArray[np.float32], scores: list[float], rows: list[int]) -> list[dict[str, Any]]:
        hits = [(score, row) for score, row in zip(scores, rows, strict=True) if row >= 0]
        return [
            {"rank": rank, "score": score, **self._shown(row), "frame": self.frames.best(row, asked)}
            for rank, (score, row) in enumerate(hits, start=1)
        ]

    def _shown(self, row: int) -> dict[str, Any]:
        item = dict(zip(SHOWN, self.items.iloc[row].tolist(), strict=True))
        return item | {"captions": list(item["captions"])}


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
