"""Cursors: texts that stand for the next page of results, and that a client sends back unchanged.

A cursor holds the query's embedding, so the next page needs no encoding and is ranked by the same numbers. It grants
nothing that its sender may not ask for anyway; therefore it is checked, but not signed.
"""

import base64
import json
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cots.search_engine.queries import Query, ResultMedia, Where
from cots.service.errors import RequestRefused
from cots.service.loaded_version import LoadedVersion
from cots.service.schemas import MAX_FILTERS

MAX_RESULTS = 1000  # of one query, over all pages
MAX_LENGTH = 1.01  # of an embedding; a longer one could give scores that no JSON holds
MALFORMED = "the cursor is malformed: send the `next` of an answer, unchanged"


class Cursor(BaseModel):
    """The next page of a query.

    Attributes:
        version: version of the index; no other can continue its ranking.
        encoders: digest of the encoders.
        vector: the query's embedding, base64 of little-endian float32.
        offset: number of results on the pages before.
        media, min_score, where: as in `Query`.
        fits: as in the first page's answer.
    """

    model_config = ConfigDict(extra="forbid")

    version: str
    encoders: str
    vector: str
    offset: Annotated[int, Field(ge=1, lt=MAX_RESULTS)]
    media: ResultMedia
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None
    where: Annotated[Where, Field(max_length=MAX_FILTERS)]
    fits: bool | None

    @classmethod
    def after(cls, query: Query, vector: np.ndarray, version: LoadedVersion, *, fits: bool | None) -> Self:
        """The page that follows the one that `query` asks for."""
        return cls(
            version=version.view.target.version,
            encoders=version.view.encoders,
            vector=base64.b64encode(vector.astype("<f4").tobytes()).decode(),
            offset=query.offset + query.k,
            media=query.media,
            min_score=query.min_score,
            where=query.where,
            fits=fits,
        )

    @classmethod
    def decode(cls, text: str) -> Self:
        """Parse a cursor that `encode` wrote.

        Raises:
            RequestRefused: the text is not such a cursor.
        """
        try:
            return cls.model_validate_json(base64.urlsafe_b64decode(text.encode("ascii")))
        except (ValidationError, ValueError):  # binascii.Error and UnicodeEncodeError are ValueErrors
            raise RequestRefused(422, MALFORMED) from None

    def encode(self) -> str:
        """The cursor as URL-safe text."""
        return base64.urlsafe_b64encode(json.dumps(self.model_dump(), separators=(",", ":")).encode()).decode()

    def query(self, version: LoadedVersion, k: int) -> Query:
        """The query for the page.

        Raises:
            RequestRefused: another version answers now, or the embedding cannot be one of its encoders.
        """
        if (self.version, self.encoders) != (version.view.target.version, version.view.encoders):
            raise RequestRefused(
                410,
                f"the results are those of version {self.version[:64]}, and {version.view.target.version} answers now: "
                "send the query again",
            )
        try:
            vector = np.frombuffer(base64.b64decode(self.vector, validate=True), "<f4")
        except ValueError:  # binascii.Error is one
            raise RequestRefused(422, MALFORMED) from None
        if vector.shape != (version.search.model.dim,) or not np.linalg.norm(vector.astype(np.float64)) <= MAX_LENGTH:
            raise RequestRefused(422, MALFORMED)
        return Query(
            vector,
            min(k, MAX_RESULTS - self.offset),
            self.media,
            offset=self.offset,
            min_score=self.min_score,
            where=self.where,
        )
