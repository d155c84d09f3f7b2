"""What a caller of a packaged model may hand over, read into queries: texts and pictures, in a list or a table."""

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cots.data.image_decoding import UnusableImage, decode_image
from cots.errors import BadInput
from cots.models.dual_encoder import DualEncoder

ResultMedia = Literal["any", "image", "video", "text"]
RESULT_MEDIA: tuple[ResultMedia, ...] = get_args(ResultMedia)
DEFAULT_K = 10  # results a query, where the caller names no number
DEFAULT_MEDIA: ResultMedia = "any"


@dataclass(frozen=True, slots=True)
class Query:
    """One text or one picture, and what it asks for.

    Attributes:
        content: what others are compared with.
        k: results at most.
        media: of the results: pictures, clips, captions ("text"), or pictures and clips together ("any").
    """

    content: str | Image.Image
    k: int
    media: ResultMedia = DEFAULT_MEDIA


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryReader:
    """Reads queries and refuses what cannot be one.

    Attributes:
        columns: that a table may have, of text, image, k and media.
        max_pixels: larger pictures are refused unopened.
        min_side: of a picture, pixels.
    """

    columns: tuple[str, ...]
    max_pixels: int
    min_side: int

    def __call__(self, data: object, *, k: int, media: str = DEFAULT_MEDIA) -> list[Query]:
        """Queries in the order given.

        Args:
            data: texts in a list; or a table (a data frame, a list of rows, columns by name) with `text`, or `image`
                as encoded bytes or base64, and maybe `k` and `media`; a row fills one of the first two.
            k, media: of the queries that do not say it themselves.

        Raises:
            BadInput: anything else; names the row.
        """
        common = {"k": k, "media": media}
        rows = ({name: value for name, value in row.items() if _given(value)} for row in self._rows(data))
        return [self._query(number, common | row) for number, row in enumerate(rows)]

    def _rows(self, data: object) -> list[dict[str, Any]]:
        if isinstance(data, dict):
            data = pd.DataFrame(data)
        if isinstance(data, pd.DataFrame):
            return self._table(data)
        if isinstance(data, np.ndarray | pd.Series):
            data = data.tolist()
        if not isinstance(data, Iterable) or isinstance(data, str | bytes):
            raise BadInput(f"queries come as a list of texts or as a table, not as {type(data).__name__}")
        rows = list(data)
        if rows and all(isinstance(row, dict) for row in rows):
            return self._table(pd.DataFrame(rows))
        return [{"text": row} for row in rows]

    def _table(self, table: pd.DataFrame) -> list[dict[str, Any]]:
        names = [str(name) for name in table.columns]
        if names == ["0"]:  # a plain list that was sent to a server as a table
            names = ["text"]
        if unknown := sorted(set(names) - set(self.columns)):
            raise BadInput(f"queries have no column {', '.join(unknown)}: known are {', '.join(self.columns)}")
        return [dict(zip(names, row, strict=True)) for row in table.itertuples(index=False, name=None)]

    def _query(self, number: int, row: dict[str, Any]) -> Query:
        if ("text" in row) == ("image" in row):
            raise BadInput(f"query {number}: give it either a text or an image")
        content = _text(number, row["text"]) if "text" in row else self._picture(number, row["image"])
        return Query(content, _count(number, row["k"]), _media(number, row["media"]))

    def _picture(self, number: int, image: object) -> Image.Image:
        try:
            data = base64.b64decode(image, validate=True) if isinstance(image, str) else image
        except binascii.Error as error:
            raise BadInput(f"query {number}: the image is text that is not base64 ({error})") from None
        if not isinstance(data, bytes | bytearray):
            raise BadInput(f"query {number}: the image is {type(data).__name__}, not encoded bytes or base64")
        try:
            return decode_image(bytes(data), max_pixels=self.max_pixels, min_side=self.min_side)
        except UnusableImage as error:
            raise BadInput(f"query {number}: the image cannot be used: {error}") from None


def encode_queries(model: DualEncoder, queries: Sequence[Query], *, batch: int) -> NDArray[np.float32]:
    """Unit rows (Q, D) in the order of the queries, texts and pictures mixed as they come."""
    found = np.empty((len(queries), model.dim), np.float32)
    texts = {row: query.content for row, query in enumerate(queries) if isinstance(query.content, str)}
    pictures = {row: query.content for row, query in enumerate(queries) if not isinstance(query.content, str)}
    found[list(texts)] = model.encode_texts(list(texts.values()), batch=batch)
    found[list(pictures)] = model.encode_images(list(pictures.values()), batch=batch)
    return found


def _text(number: int, text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"query {number}: the text is {'blank' if isinstance(text, str) else type(text).__name__}")
    return text


def _count(number: int, k: float) -> int:
    if not float(k).is_integer() or k < 1:
        raise BadInput(f"query {number}: k must be a whole number from 1, not {k}")
    return int(k)


def _media(number: int, media: str) -> ResultMedia:
    for known in RESULT_MEDIA:
        if media == known:
            return known
    raise BadInput(f"query {number}: media must be one of {', '.join(RESULT_MEDIA)}, not {media}")


def _given(value: object) -> bool:
    return value is not None and value is not pd.NA and value == value  # a NaN differs from itself
