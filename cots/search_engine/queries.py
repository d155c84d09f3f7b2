"""Parses the input of a packaged model, a list or table of texts and images, into queries."""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cots.data.image_decoding import UnusableImage, decode_image
from cots.data.samples import is_utf8
from cots.errors import BadInput
from cots.models.text_model import TextModel

ResultMedia = Literal["any", "image", "video", "text"]
RESULT_MEDIA: tuple[ResultMedia, ...] = get_args(ResultMedia)
DEFAULT_K = 10  # results per query if the caller gives no k
DEFAULT_MEDIA: ResultMedia = "any"

Where = tuple[tuple[str, tuple[str, ...]], ...]  # a filter: columns of the items, each with the values that pass
TEXT_WEIGHT = 1.5  # of a text beside an image; docs/serving.md shows what both weights do
MINUS_WEIGHT = 0.75  # of a text to keep away from
MIN_LENGTH = 1e-6  # of a sum of terms; in a shorter one they cancel each other, and it points nowhere


@dataclass(frozen=True, slots=True)
class Query:
    """What to search by, and which results to give.

    Attributes:
        content: a text, an image, or an embedding (D,) that was computed before.
        k: maximum number of results.
        media: kind of results: images, videos, captions ("text"), or images and videos together ("any").
        text: how the results should differ from the image in `content`, such as "at night".
        text_weight: weight of `text` relative to the image.
        minus: texts to keep away from.
        offset: number of best results that are left out, those of earlier pages.
        min_score: results with a lower score are left out.
        where: items must have one of the given values in every column.
    """

    content: str | Image.Image | NDArray[np.float32]
    k: int
    media: ResultMedia = DEFAULT_MEDIA
    text: str | None = None
    text_weight: float = TEXT_WEIGHT
    minus: tuple[str, ...] = ()
    offset: int = 0
    min_score: float | None = None
    where: Where = ()

    @property
    def terms(self) -> list[tuple[float, str | Image.Image | NDArray[np.float32]]]:
        """Weights and contents whose sum is the query."""
        texts = [(self.text_weight, self.text)] if self.text is not None else []
        return [(1.0, self.content), *texts, *((-MINUS_WEIGHT, text) for text in self.minus)]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryReader:
    """Parses queries and refuses malformed ones.

    Attributes:
        columns: allowed in a table, a subset of text, image, k and media.
        max_pixels: images with more pixels are refused without decoding.
        min_side: images with a shorter side are refused, pixels.
    """

    columns: tuple[str, ...]
    max_pixels: int
    min_side: int

    def __call__(self, data: object, *, k: int, media: str = DEFAULT_MEDIA) -> list[Query]:
        """Parse queries, keeping their order.

        Args:
            data: a list of texts; or a table (data frame, list of rows, or columns by name) with a `text`, or an
                `image` as encoded bytes or base64, in each row, and optionally `k` and `media`.
            k: default for queries without k.
            media: default for queries without media.

        Raises:
            BadInput: anything else; the message names the row.
        """
        defaults = {"k": k, "media": media}
        rows = ({name: value for name, value in row.items() if _is_given(value)} for row in self._rows(data))
        return [self._parse_query(number, defaults | row) for number, row in enumerate(rows)]

    def _rows(self, data: object) -> list[dict[str, Any]]:
        if isinstance(data, dict):
            data = pd.DataFrame(data)
        if isinstance(data, pd.DataFrame):
            return self._table(data)
        if isinstance(data, np.ndarray | pd.Series):
            data = data.tolist()
        if not isinstance(data, Iterable) or isinstance(data, str | bytes):
            raise BadInput(f"queries must be a list of texts or a table, not {type(data).__name__}")
        rows = list(data)
        if rows and all(isinstance(row, dict) for row in rows):
            return self._table(pd.DataFrame(rows))
        return [{"text": row} for row in rows]

    def _table(self, table: pd.DataFrame) -> list[dict[str, Any]]:
        names = [str(name) for name in table.columns]
        if names == ["0"]:  # MLflow's server turns a plain list into a table with column 0
            names = ["text"]
        if unknown := sorted(set(names) - set(self.columns)):
            raise BadInput(f"unknown query column {', '.join(unknown)}: allowed are {', '.join(self.columns)}")
        return [dict(zip(names, row, strict=True)) for row in table.itertuples(index=False, name=None)]

    def _parse_query(self, number: int, row: dict[str, Any]) -> Query:
        if ("text" in row) == ("image" in row):
            raise BadInput(f"query {number}: give it either a text or an image")
        content = (
            parse_text(f"query {number}", row["text"]) if "text" in row else self._parse_image(number, row["image"])
        )
        return Query(content, _parse_k(number, row["k"]), _parse_media(number, row["media"]))

    def _parse_image(self, number: int, image: object) -> Image.Image:
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


def parse_text(place: str, text: object) -> str:
    """A text to search by, or to keep away from.

    Args:
        place: where it stands, such as `query 3`.
        text: should be one.

    Raises:
        BadInput: it is not a text, blank, or not UTF-8.
    """
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{place}: the text is {'blank' if isinstance(text, str) else type(text).__name__}")
    if not is_utf8(text):
        raise BadInput(f"{place}: the text is not UTF-8: {text!a:.100}")
    return text


def parse_where(where: Mapping[str, str | Sequence[str]]) -> Where:
    """A filter of results.

    Args:
        where: columns of the items, each with the value or the values that may be found.
    """
    return tuple((name, (value,) if isinstance(value, str) else tuple(value)) for name, value in where.items())


def encode_queries(model: TextModel, queries: Sequence[Query], *, batch_size: int) -> NDArray[np.float32]:
    """Encode queries into embeddings (Q, D) with unit rows, in their order.

    The embedding of a query of several terms is the sum of their unit vectors by weight, scaled to unit length:

        normalize(content + text_weight * text - MINUS_WEIGHT * sum of minus)

    Args:
        model: a `DualEncoder` if any query has an image.
        queries: in any order.
        batch_size: texts or images encoded together.
    """
    terms = [(row, weight, content) for row, query in enumerate(queries) for weight, content in query.terms]
    vectors = _encode_contents(model, [content for _, _, content in terms], batch_size=batch_size)
    rows, weights = np.array([row for row, _, _ in terms], np.int64), np.array([weight for _, weight, _ in terms])
    if len(terms) == len(queries):
        return vectors
    sums = np.zeros((len(queries), model.dim), np.float32)
    np.add.at(sums, rows, (weights[:, None] * vectors).astype(np.float32))
    composed = np.bincount(rows, minlength=len(queries)) > 1
    lengths = np.linalg.norm(sums[composed], axis=1, keepdims=True)
    sums[composed] /= np.maximum(lengths, MIN_LENGTH)
    return sums


def _encode_contents(
    model: TextModel, contents: Sequence[str | Image.Image | NDArray[np.float32]], *, batch_size: int
) -> NDArray[np.float32]:
    vectors = np.empty((len(contents), model.dim), np.float32)
    texts = {row: content for row, content in enumerate(contents) if isinstance(content, str)}
    images = {row: content for row, content in enumerate(contents) if isinstance(content, Image.Image)}
    vectors[list(texts)] = model.encode_texts(list(texts.values()), batch_size=batch_size)
    if images:
        from cots.models.dual_encoder import DualEncoder  # imports timm

        assert isinstance(model, DualEncoder), "the image encoder was not loaded"
        vectors[list(images)] = model.encode_images(list(images.values()), batch_size=batch_size)
    for row, content in enumerate(contents):
        if isinstance(content, np.ndarray):
            vectors[row] = content
    return vectors


def _parse_k(number: int, k: float) -> int:
    if not float(k).is_integer() or k < 1:
        raise BadInput(f"query {number}: k must be a whole number from 1, not {k}")
    return int(k)


def _parse_media(number: int, media: str) -> ResultMedia:
    for known in RESULT_MEDIA:
        if media == known:
            return known
    raise BadInput(f"query {number}: media must be one of {', '.join(RESULT_MEDIA)}, not {media}")


def _is_given(value: object) -> bool:
    return value is not None and value is not pd.NA and value == value  # a NaN differs from itself
