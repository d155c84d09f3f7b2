"""Reads the query log of the search service."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, Base64Bytes, BaseModel

from cots.errors import BadInput

MAX_LINE = 100_000  # bytes; the service writes no longer lines
SHOWN_DIGITS = 12  # of a digest
NORM_TOLERANCE = 0.02  # of a unit row in half precision

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedQueries:
    """Queries that one model encoded, without duplicates.

    Attributes:
        texts: N texts.
        text_vectors: (N, D) unit rows.
        image_vectors: (M, D) unit rows; the images themselves are not logged.
        num_skipped: number of lines left out, by reason.
    """

    texts: tuple[str, ...]
    text_vectors: Rows
    image_vectors: Rows
    num_skipped: Mapping[str, int]


class _Line(BaseModel):
    """The fields of a line that are read; the service writes more."""

    when: AwareDatetime
    kind: Literal["text", "image"]
    text: str | None
    encoders_digest: str
    vector: Base64Bytes  # little-endian float16


class _Query(NamedTuple):
    when: datetime
    text: str | None  # None for an image
    vector: Rows


def read_queries(folder: Path, *, encoders: str, dim: int, max_queries: int) -> LoggedQueries:
    """Read the newest queries from a folder of JSON lines (`*.jsonl`).

    Repeated queries count once. A text that is the beginning of another one is left out, because the search page logs
    every intermediate text while somebody types.

    Args:
        folder: that `cots serve --log-queries` writes to.
        encoders: digest of the model whose queries are read; embeddings of other models cannot be compared.
        dim: of the embeddings.
        max_queries: maximum number of queries, newest first.

    Raises:
        BadInput: there is no such folder, or a file in it cannot be read.
    """
    if not folder.is_dir():
        raise BadInput(f"no query log {folder}: `cots serve --log-queries {folder}` writes one")
    counts: Counter[str] = Counter()
    queries = heapq.nlargest(max_queries, _parse_log(folder, encoders, dim, counts), key=lambda query: query.when)
    counts["older"] = counts.pop("read", 0) - len(queries)
    by_text = {" ".join(query.text.split()): query.vector for query in queries if query.text is not None}
    texts = _drop_prefixes(by_text)
    images = {query.vector.tobytes(): query.vector for query in queries if query.text is None}
    counts["half typed"] = len(by_text) - len(texts)
    counts["repeated"] = len(queries) - len(by_text) - len(images)
    return LoggedQueries(
        texts=texts,
        text_vectors=_stack([by_text[text] for text in texts], dim),
        image_vectors=_stack([images[key] for key in sorted(images)], dim),
        num_skipped={reason: count for reason, count in sorted(counts.items()) if count},
    )


def _parse_log(folder: Path, encoders: str, dim: int, counts: Counter[str]) -> Iterator[_Query]:
    """Queries of the given encoders; counts them as `read`, and all other lines by reason."""
    for line in _read_lines(folder):
        try:
            fields = _Line.model_validate_json(line)
            vector = _decode_vector(fields.vector, dim) if fields.encoders_digest == encoders else None
        except ValueError:  # includes pydantic's errors
            counts["unreadable"] += 1
            continue
        if vector is None:
            counts[f"by encoders {fields.encoders_digest[:SHOWN_DIGITS]}"] += 1
            continue
        counts["read"] += 1
        yield _Query(when=fields.when, text=(fields.text or "") if fields.kind == "text" else None, vector=vector)


def _read_lines(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("*.jsonl")):
        try:
            with path.open("rb") as file:
                yield from iter(lambda: file.readline(MAX_LINE), b"")
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}") from None


def _decode_vector(data: bytes, dim: int) -> Rows:
    if len(data) != 2 * dim:
        raise ValueError(f"{len(data)} bytes are not {dim} numbers in half precision")
    vector = np.frombuffer(data, "<f2").astype(np.float32)
    if not abs(float(np.linalg.norm(vector)) - 1) <= NORM_TOLERANCE:  # false for NaN too
        raise ValueError("not a unit row")
    return vector


def _drop_prefixes(texts: Mapping[str, object]) -> tuple[str, ...]:
    """The sorted texts without those that are a prefix of another; the next text then starts with it."""
    ordered = sorted(texts)
    return tuple(text for text, following in pairwise([*ordered, ""]) if not text or not following.startswith(text))


def _stack(rows: list[Rows], dim: int) -> Rows:
    return np.stack(rows) if rows else np.zeros((0, dim), np.float32)
